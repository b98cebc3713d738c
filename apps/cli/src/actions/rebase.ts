import { posix } from 'node:path';
import { isUrl } from '@downfold/storage';
import { engineFor } from '../engine.ts';
import { backend } from '../environment.ts';
import { absolute, directoryOf } from '../paths.ts';
import { type PlannedOptions, planAndRun } from '../planned.ts';

/** Options of `rebase`. */
export interface RebaseOptions extends PlannedOptions {
  readonly format: string;
  readonly backing: string;
  readonly backingFormat?: string;
  readonly unsafe?: boolean;
}

/** `nbd:there`, `json:{...}`: may be a file too, but only one that is there is taken for one. */
const PROTOCOL = /^[^/]+:/;

/** `downfold rebase`: FILE reads the same over another backing file. A relative name is relative to FILE, as in its header. */
export async function rebase(file: string, options: RebaseOptions): Promise<number> {
  const engine = engineFor(file, options);
  const base =
    options.backing === '' || isUrl(options.backing)
      ? options.backing || undefined
      : posix.resolve(directoryOf(file), options.backing);
  if (base !== undefined && PROTOCOL.test(options.backing)) await backend.realPath(base);
  return planAndRun(engine, file, options, (how) =>
    engine.plan(
      {
        file: absolute(file),
        format: options.format,
        base,
        baseFormat: options.backingFormat,
        strategy: 'rebase',
        unsafe: options.unsafe ?? false,
      },
      how,
    ),
  );
}
