import { type NodeId, readMark, writeMark } from '@downfold/chain';
import type { ImageMark } from '@downfold/image';
import { isUrl, type StorageBackend, StorageError } from '@downfold/storage';
import { DownfoldError } from '@downfold/units';
import { type Journal, pivotIn } from './journal.ts';
import type { Layers } from './layers.ts';
import { type CommitPlan, factsIn } from './plan.ts';

/** Base holds all that top showed: if an abandoned job once marked it as a mixture, it is none any more; unless top is one itself. */
export async function clearMixed(
  plan: CommitPlan,
  layers: Layers,
  backend: StorageBackend,
): Promise<void> {
  const { operation, base, top } = plan.request;
  if (operation !== 'commit' || base === null || factsIn(plan, top).mark !== null) return;
  if (factsIn(plan, base).mark?.state === 'mixed')
    await writeMark(layers.get(base).image, null, backend);
}

/** Images of a job that was given up: those that are marked, and those that could not be, and why. */
export interface Abandoned {
  readonly mixed: readonly NodeId[];
  readonly unmarked: readonly { readonly node: NodeId; readonly why: string }[];
}

/**
 * What a job that was given up leaves behind as markers: images whose content is of no point in time. Resolves with all of them, also with those
 * behind servers that have no place for a mark, and apart with those that cannot be marked: gone by now, or not ours to write.
 */
export async function markAbandoned(
  nodes: readonly NodeId[],
  layers: Layers,
  backend: StorageBackend,
  mark: Omit<ImageMark, 'state'>,
): Promise<Abandoned> {
  const mixed: NodeId[] = [];
  const unmarked: { node: NodeId; why: string }[] = [];
  for (const node of nodes)
    try {
      await markMixed(node, layers, backend, mark);
      mixed.push(node);
    } catch (cause) {
      if (!isUnmarkable(cause)) throw cause;
      unmarked.push({ node, why: (cause as Error).message });
    }
  return { mixed, unmarked };
}

async function markMixed(
  node: NodeId,
  layers: Layers,
  backend: StorageBackend,
  mark: Omit<ImageMark, 'state'>,
): Promise<void> {
  const { image } = await layers.reopen(node);
  // one that the job has retired for good stays so; those above a mixed one in a chain of the time still read right through it
  const before = await readMark(image, backend);
  const state = before?.job === mark.job ? before.state : 'mixed';
  try {
    await writeMark(image, { ...mark, state }, backend);
  } catch (cause) {
    const isPlaceless = cause instanceof StorageError && cause.code === 'STORAGE_UNSUPPORTED';
    if (!isUrl(image.label) || !isPlaceless) throw cause;
  }
}

/** What marking an image that lost its meaning needs. */
export interface Retiring {
  readonly backend: StorageBackend;
  readonly layers: Pick<Layers, 'reopen'>;
  readonly journal: Journal;
  /** ISO date for marks. */
  readonly date: string;
}

/** Marks an image that lost its meaning, or whose place another one took. Resolves with why that cannot be done; null: it is marked. */
export async function retire(node: NodeId, parts: Retiring): Promise<string | null> {
  const { backend, layers, journal, date } = parts;
  const state = pivotIn(journal)?.from === node ? 'superseded' : 'invalid';
  try {
    const { image } = await layers.reopen(node);
    await writeMark(image, { state, job: journal.intent.job, date }, backend);
    return null;
  } catch (cause) {
    if (!isUnmarkable(cause)) throw cause;
    return (cause as Error).message;
  }
}

const UNMARKABLE: ReadonlySet<string> = new Set([
  'IMAGE_NEEDS_REPAIR',
  'STORAGE_ACCESS',
  // it is gone, or another file has its name: there is nothing left to mark
  'STORAGE_NOT_FOUND',
  'CHAIN_MISSING',
]);

function isUnmarkable(cause: unknown): boolean {
  return cause instanceof DownfoldError && UNMARKABLE.has(cause.code);
}
