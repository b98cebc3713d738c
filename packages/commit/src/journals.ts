import { posix } from 'node:path';
import {
  type ChainLayer,
  identityKey,
  identityOf,
  type NodeId,
  type PoolGraph,
} from '@downfold/chain';
import { isUrl, type StorageBackend, StorageError } from '@downfold/storage';
import { claimOf, conflictBetween, disturb, rewrittenBy } from './claim.ts';
import { CommitError } from './errors.ts';
import {
  JOURNAL_SUFFIX,
  type Journal,
  type JournalOwner,
  journalPath,
  lastOwner,
  leafOf,
  openJournal,
  readJournal,
} from './journal.ts';
import { inPlace, leafBeside } from './journal-plan.ts';
import type { EngineParts } from './parts.ts';
import { type CommitPlan, factsIn } from './plan.ts';

/** Opens the journal beside an image. @throws CommitError `COMMIT_NO_JOURNAL` */
export async function journalBeside(backend: StorageBackend, path: string): Promise<Journal> {
  const journal = await openJournal(backend, journalPath(path));
  if (journal !== null) return await ofItsLeaf(journal, path);
  // a crash that leaves this came before the first change; a disk that lost what was on it may have come later
  const unwritten =
    (await identityOf(journalPath(path), backend)) === null
      ? ''
      : `; its journal '${journalPath(path)}' was never written, and the next job replaces it; 'downfold check' of the images shows whether one left anything`;
  throw new CommitError(
    'COMMIT_NO_JOURNAL',
    `${path}: there is no interrupted job of it${unwritten}`,
    { image: path },
  );
}

/** A journal lies beside the leaf of its job: a copy of it elsewhere would be gone on with twice. @throws CommitError `COMMIT_JOURNAL_BAD` */
async function ofItsLeaf(journal: Journal, path: string): Promise<Journal> {
  const leaf = leafOf(inPlace(journal));
  if (leaf === path) return journal;
  await journal[Symbol.asyncDispose]();
  throw new CommitError(
    'COMMIT_JOURNAL_BAD',
    `${journal.path}: tells of a job of '${leaf}', and does not lie beside it`,
    { journal: journal.path },
  );
}

/**
 * Refuses the leaf of an interrupted job, and an image that one whose journal lies in the same directory writes: the job knows it as it was.
 * @throws CommitError `COMMIT_INTERRUPTED_BEFORE`
 */
export async function assertNoJournal(backend: StorageBackend, path: string): Promise<void> {
  if (isUrl(path)) return;
  const found = await readJournal(backend, journalPath(path));
  if (found !== null) throw interrupted(path, found.intent.job);
  for await (const { leaf, plan, intent } of journalsIn(backend, posix.dirname(path)))
    if (rewrittenBy(plan).includes(path)) throw interrupted(leaf, intent.job);
}

/** A job that was interrupted, or runs: the image its journal lies beside, and its plan in place. */
type Found = Pick<Journal, 'intent' | 'records'> & {
  readonly leaf: string;
  readonly plan: CommitPlan;
};

/** The journals of a directory, when it can be looked through; what is damaged, or not ours to read, is none. */
async function* journalsIn(
  backend: StorageBackend,
  directory: string,
): AsyncGenerator<Found, void, undefined> {
  if ((await identityOf(directory, backend)) === null) return;
  for (const { name, kind } of await backend.list(directory).catch(nothingToList)) {
    if (kind !== 'file' || !name.endsWith(JOURNAL_SUFFIX) || name === JOURNAL_SUFFIX) continue;
    const path = posix.join(directory, name);
    const found = await readJournal(backend, path).catch(nobodyGoesOn);
    if (found === null) continue;
    const journal = { path, intent: found.intent };
    yield { ...found, leaf: leafBeside(journal), plan: inPlace(journal) };
  }
}

/**
 * Refuses an image in which an interrupted job, whose journal lies in the same directory, has written aside what nothing in the image refers to
 * yet: to all others those are leaks, and who gives them back takes them from the job. @throws CommitError `COMMIT_INTERRUPTED_BEFORE`
 */
export async function assertNoStaging(backend: StorageBackend, path: string): Promise<void> {
  if (isUrl(path)) return;
  const identity = await identityOf(path, backend);
  if (identity === null) return;
  for await (const found of journalsIn(backend, posix.dirname(path)))
    for (const node of stagedIn(found)) {
      const of = await identityOf(factsIn(found.plan, node).path, backend);
      if (of !== null && identityKey(of) === identityKey(identity))
        throw interrupted(found.leaf, found.intent.job);
    }
}

/** What is no journal, or damaged, holds no job up; nor does that of another user, who alone can go on with it. */
function nobodyGoesOn(cause: unknown): null {
  if (cause instanceof CommitError && cause.code === 'COMMIT_JOURNAL_BAD') return null;
  if (cause instanceof StorageError && NOT_OURS.has(cause.code)) return null;
  throw cause;
}

const NOT_OURS: ReadonlySet<string> = new Set(['STORAGE_ACCESS', 'STORAGE_NOT_REGULAR']);

function nothingToList(cause: unknown): readonly [] {
  if (cause instanceof StorageError && cause.code === 'STORAGE_ACCESS') return [];
  throw cause;
}

/** Nodes that a journal knows to have a staging which is not published for sure. */
function stagedIn({ records }: Pick<Journal, 'records'>): readonly NodeId[] {
  const last = records.findLast((record) => record.type === 'PROGRESS');
  return Object.keys(last?.stagings ?? {});
}

/**
 * A journal beside a device would lie in /dev, which forgets it when the machine stops.
 * @throws CommitError `COMMIT_UNSUPPORTED`
 */
export async function assertJournalStays(
  plan: CommitPlan,
  { backend }: EngineParts,
): Promise<void> {
  const leaf = leafOf(plan);
  if (isUrl(leaf) || (await backend.facts(leaf)).kind !== 'block-device') return;
  throw new CommitError(
    'COMMIT_UNSUPPORTED',
    `${leaf}: a job's journal lies beside the leaf, which is a device: nothing beside it outlives the next start of the machine; put an overlay on top that is a file`,
    { image: leaf },
  );
}

/**
 * A journal lies beside the leaf of its job, which may be any layer, or any other file of the pool: none of another job may change what a plan
 * has to do with, or have to do with what it changes. One that does not runs, or can be gone on with, beside it.
 * @throws CommitError `COMMIT_INTERRUPTED_BEFORE`; `COMMIT_LIVE_OWNER` for one that another process still runs; of a layer, `COMMIT_JOURNAL_BAD`
 */
export async function assertNoJournalOf(
  plan: CommitPlan,
  layers: readonly ChainLayer[],
  pool: PoolGraph,
  parts: EngineParts,
): Promise<void> {
  const { backend } = parts;
  const own = layers.map(({ facts }) => facts.path).filter((path) => !isUrl(path));
  for (const path of own) {
    // a damaged one beside a layer is to be looked at; others hold nobody up
    const found = await readJournal(backend, journalPath(path));
    if (found === null) continue;
    const theirs = claimOf(inPlace({ path: journalPath(path), intent: found.intent }));
    // beneath one disk jobs share what they stand on
    if (conflictBetween(claimOf(plan), theirs) !== null) throw interrupted(path, found.intent.job);
  }
  const paths = pool.images.map(({ path }) => path).filter((path) => !isUrl(path));
  for (const directory of new Set([...own, ...paths].map((path) => posix.dirname(path))))
    for await (const found of journalsIn(backend, directory)) {
      if (own.includes(found.leaf) || !disturb(plan, found.plan)) continue;
      assertOrphan(parts, { ...found, path: journalPath(found.leaf) });
      throw disturbed(found.leaf, found.intent.job);
    }
}

/** The job may run in this very process, beneath another disk. */
function disturbed(leaf: string, job: string): CommitError {
  return new CommitError(
    'COMMIT_INTERRUPTED_BEFORE',
    `${leaf}: a job of it is not over, and changes images that this one needs, or needs those that it changes; unless it still runs, go on with it: downfold resume '${leaf}', or give it up: downfold abort '${leaf}'`,
    { image: leaf, job },
  );
}

/** @throws CommitError `COMMIT_LIVE_OWNER` */
export function assertOrphan(
  parts: EngineParts,
  journal: Pick<Journal, 'path' | 'intent' | 'records'>,
): void {
  const owner = lastOwner(journal);
  if (!isSame(owner, parts.owner) && parts.isAlive(owner))
    throw new CommitError(
      'COMMIT_LIVE_OWNER',
      `${journal.path}: process ${owner.pid} on ${owner.host} still runs this job`,
      { journal: journal.path, pid: owner.pid },
    );
}

function isSame(a: JournalOwner, b: JournalOwner): boolean {
  return a.pid === b.pid && a.bootId === b.bootId;
}

function interrupted(leaf: string, job: string): CommitError {
  return new CommitError(
    'COMMIT_INTERRUPTED_BEFORE',
    `${leaf}: an earlier job was interrupted; go on with it: downfold resume '${leaf}', or give it up: downfold abort '${leaf}'`,
    { image: leaf, job },
  );
}
