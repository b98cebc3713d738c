import { engineFor } from '../engine.ts';
import { naming } from '../environment.ts';
import { absolute } from '../paths.ts';
import { type PlannedOptions, planAndRun } from '../planned.ts';

/** Options of `stream`. */
export interface StreamOptions extends PlannedOptions {
  readonly format: string;
  readonly base?: string;
  readonly pool?: readonly string[];
}

/** `downfold stream`: pulls up into FILE what lies between it and base, then relinks it. */
export async function stream(file: string, options: StreamOptions): Promise<number> {
  const engine = engineFor(file, naming(options, options.base));
  return planAndRun(engine, file, options, (how) =>
    engine.plan(
      {
        file: absolute(file),
        format: options.format,
        base: options.base,
        strategy: 'stream',
        pools: (options.pool ?? []).map(absolute),
      },
      how,
    ),
  );
}
