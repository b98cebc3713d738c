import { namesProtocol } from '@downfold/chain';
import { isUrl } from '@downfold/storage';
import { engineFor } from '../engine.ts';
import { backend } from '../environment.ts';
import { UsageError } from '../failure.ts';
import { absolute, absoluteFrom } from '../paths.ts';
import { type PlannedOptions, planAndRun } from '../planned.ts';

/** Options of `rebase`. */
export interface RebaseOptions extends PlannedOptions {
  readonly format: string;
  readonly backing?: string;
  readonly backingFormat?: string;
  readonly unsafe?: boolean;
}

/** `downfold rebase`: FILE reads the same over another backing file. A relative name is relative to FILE, as in its header. */
export async function rebase(file: string, options: RebaseOptions): Promise<number> {
  const { backing = '' } = options;
  if (options.backing === undefined && options.unsafe !== true)
    throw new UsageError('Must specify backing file (-b) or use simple mode (-u)');
  const engine = engineFor(file, options);
  const base = backing === '' ? undefined : absoluteFrom(file, backing);
  // `nbd:there`, `json:{...}`: may be a file too, but only one that is there is taken for one
  if (base !== undefined && namesProtocol(backing) && !isUrl(base)) await backend.realPath(base);
  return planAndRun(engine, file, options, (how) =>
    engine.plan(
      {
        file: absolute(file),
        format: options.format,
        base,
        baseFormat: options.backingFormat,
        baseName: backing,
        strategy: 'rebase',
        unsafe: options.unsafe ?? false,
      },
      how,
    ),
  );
}
