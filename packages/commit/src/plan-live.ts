import {
  type ChainEnvironment,
  type ChainLayer,
  factsOf,
  identityKey,
  identityOf,
  type OpenChain,
} from '@downfold/chain';
import { CommitError, type CommitErrorCode } from './errors.ts';
import type { LiveDisk } from './live.ts';
import type { CommitStrategy } from './strategy.ts';

/** The layers of a disk in use up to the request's image, with what is known of them now. They stay the disk's. */
export async function chainInUse(
  live: LiveDisk,
  file: string,
  { operation }: CommitStrategy,
  { backend }: ChainEnvironment,
): Promise<OpenChain> {
  const path = await backend.realPath(file);
  const identity = await identityOf(path, backend);
  const at = live.layers.findIndex(
    ({ image }) => identity !== null && identityKey(image.file.identity) === identityKey(identity),
  );
  const refuse = (code: CommitErrorCode, why: string): never => {
    throw new CommitError(code, `${path}: ${why}`, { image: path });
  };
  if (at < 0) refuse('COMMIT_BAD_REQUEST', 'is no layer of the disk in use');
  if (operation === 'rebase') refuse('COMMIT_UNSUPPORTED', 'cannot be rebased while it is in use');
  if (operation === 'commit' && at < live.layers.length - 1)
    refuse('COMMIT_BAD_REQUEST', 'is not the active layer of the disk in use');
  const layers: ChainLayer[] = [];
  for (const [index, { facts, image }] of live.layers.slice(0, at + 1).entries())
    layers.push({ facts: await factsOf(`l${index}`, facts.path, image, backend), image });
  return { layers, [Symbol.asyncDispose]: async () => {} };
}

/** What the guest writes to goes to base by a pivot, and nothing else does. */
export function assertPlace(strategy: CommitStrategy, isActive: boolean): void {
  if (strategy.operation !== 'commit' || (strategy.pivots === true) === isActive) return;
  throw new CommitError(
    'COMMIT_UNSUPPORTED',
    isActive
      ? `strategy '${strategy.name}' cannot commit the active layer of a disk in use: it is written to all the time; one that pivots can`
      : `strategy '${strategy.name}' commits the active layer of a disk in use, and nothing else`,
    { strategy: strategy.name },
  );
}
