import { printable } from '@downfold/chain';
import { engineFor } from '../engine.ts';
import type { Access } from '../environment.ts';
import { printResult } from '../output/print.ts';
import { absolute, directoryOf, near } from '../paths.ts';

/** Options of `abort`. */
export interface AbortOptions extends Access {
  readonly output: string;
  readonly quiet?: boolean;
}

/** `downfold abort`: gives up the interrupted job of FILE; says what could not be undone. */
export async function abort(file: string, options: AbortOptions): Promise<number> {
  const result = await engineFor(file, options).abort(absolute(file));
  printResult(options, result, () =>
    [
      'Job given up.',
      result.undone
        ? '  every image reads as it did before'
        : '  what was written cannot be undone; images above read as before',
      ...result.mixed.map(
        (path) => `  ${near(directoryOf(file), path)} is of no point in time by itself (marked so)`,
      ),
      ...result.unmarked.map(
        ({ image, why }) =>
          `  ${near(directoryOf(file), image)} is of no point in time by itself, and could not be marked: ${printable(why)}`,
      ),
      ...result.gone.map(
        (path) =>
          `  ${near(directoryOf(file), path)} is not there: what reads through it cannot be read`,
      ),
      ...(result.clustersFreed === 0 ? [] : [`  ${result.clustersFreed} clusters given back`]),
    ].join('\n'),
  );
  return 0;
}
