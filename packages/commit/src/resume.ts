import {
  type ChainEnvironment,
  factsOf,
  identityOf,
  type LayerFacts,
  type NodeId,
  openLayer,
} from '@downfold/chain';
import type { StorageBackend } from '@downfold/storage';
import { type Borrowed, borrowedBy } from './borrowed.ts';
import { deleteFiles } from './delete.ts';
import { CommitError } from './errors.ts';
import { assertRunnable, positionOf, runSteps } from './execute.ts';
import { isFoundation } from './foundation.ts';
import { type Journal, type JournalOwner, journalPath, lastOwner, pivotIn } from './journal.ts';
import { inPlace } from './journal-plan.ts';
import { openLayers } from './layers.ts';
import { lockPlan } from './lock-plan.ts';
import type { CommitResult, EngineParts, Job, Position, RunOptions } from './parts.ts';
import { finishPivoted } from './pivot-end.ts';
import type { CommitPlan } from './plan.ts';
import { resultOf } from './result.ts';
import type { CommitStrategy } from './strategy.ts';

/** Goes on with a job from its journal. Owns the journal. */
export async function resumeJob(
  parts: EngineParts,
  environment: ChainEnvironment,
  open: Journal,
  strategyFor: (plan: CommitPlan) => CommitStrategy,
  options: RunOptions,
): Promise<CommitResult> {
  await using journal = open;
  const started = parts.clock.now();
  assertOrphan(parts, journal);
  assertNotAborted(journal);
  if (options.afterFailedFlush !== true) assertFlushesHeld(parts, journal);
  if (journal.records.some(({ type }) => type === 'DONE')) {
    const plan = inPlace(journal);
    return await finishDone(
      { parts, environment, plan, strategy: strategyFor(plan), options },
      journal,
    );
  }
  const borrowed = borrowedBy(options);
  if (pivotIn(journal) !== null) {
    const then = inPlace(journal);
    const images = await Promise.all(then.images.map((one) => toBeMarked(one, parts.backend)));
    const plan = { ...then, images };
    const job: Job = { parts, environment, plan, strategy: strategyFor(plan), options };
    return await finishPivoted(job, journal, borrowed);
  }
  await using locks = await lockPlan(inPlace(journal), environment, borrowed);
  const found = await planFoundAgain({ parts, environment, journal, borrowed, goesOn: true });
  const { plan, environment: inside, gone } = found;
  const job: Job = { parts, environment: inside, plan, strategy: strategyFor(plan), options };
  assertRunnable(job);
  await using layers = await openLayers(plan, { environment: inside, locks, borrowed, gone });
  await journal.append({ type: 'RESUMED', owner: parts.owner });
  const position = positionOf(journal.records);
  for (const node of plan.writes) {
    const { image, facts } = layers.get(node);
    // it was made sound before the disk was used, and what seems to leak belongs to requests
    if (borrowed?.isActive(facts.identity) === true) continue;
    // what a killed process wrote shows here, and may still be lost to a power cut
    await image.flush();
    // what the crash left counted but unreferenced is given back before anything is written
    await image.reclaimLeaks({ signal: options.signal, keep: position.stagings[node] ?? null });
  }
  await layers.putInPlace();
  return await runSteps(job, layers, journal, position, started);
}

/** Goes on with a job of which all is done but deleting what lost its meaning. */
async function finishDone(job: Job, journal: Journal): Promise<CommitResult> {
  const started = job.parts.clock.now();
  const position = positionOf(journal.records);
  const deleted = await deleteFiles(job, journal);
  await journal.remove();
  const nothing = { ...position, unmarked: [], verified: false };
  return resultOf(job, journal, nothing, position, { deleted, started });
}

/** What looking for the images of a journal needs. */
interface Search {
  readonly parts: EngineParts;
  readonly environment: ChainEnvironment;
  readonly journal: Journal;
  readonly borrowed: Borrowed | null;
  /** The job is to be finished, so sources that it still reads must be as they were. */
  readonly goesOn: boolean;
}

/** The plan of a journal with its images where they are now, checked, and the environment in which they may be opened. */
interface FoundAgain {
  readonly plan: CommitPlan;
  readonly environment: ChainEnvironment;
  /** Images that are not there any more, and that nothing is to be done with but to mark them. */
  readonly gone: ReadonlySet<NodeId>;
}

export async function planFoundAgain(search: Search): Promise<FoundAgain> {
  const { environment, journal } = search;
  // images that the job itself marked already must not stand in its way
  const inside = { ...environment, policy: { ...environment.policy, allowMarked: true } };
  const needsSources = search.goesOn && !isComplete(positionOf(journal.records));
  const found = await foundAgain({ ...search, environment: inside }, needsSources);
  return { ...found, environment: inside };
}

/** @throws CommitError `COMMIT_LIVE_OWNER` */
export function assertOrphan(parts: EngineParts, journal: Journal): void {
  const owner = lastOwner(journal);
  if (!isSame(owner, parts.owner) && parts.isAlive(owner))
    throw new CommitError(
      'COMMIT_LIVE_OWNER',
      `${journal.path}: process ${owner.pid} on ${owner.host} still runs this job`,
      { journal: journal.path, pid: owner.pid },
    );
}

/** All data is where it shall be: sources are not needed any more, and may be relinked or emptied. */
export function isComplete({ cursor }: Position): boolean {
  return cursor?.['complete'] === true;
}

function isSame(a: JournalOwner, b: JournalOwner): boolean {
  return a.pid === b.pid && a.bootId === b.bootId;
}

function assertNotAborted(journal: Journal): void {
  if (journal.records.some(({ type }) => type === 'ABORT'))
    throw new CommitError(
      'COMMIT_ABORTED',
      `${journal.path}: this job was given up, and the giving up was interrupted; finish it with: downfold abort`,
      { journal: journal.path },
    );
}

/** What a failed flush left reads back from memory for as long as the machine runs, whether it is on the disk or not. */
function assertFlushesHeld(parts: EngineParts, journal: Journal): void {
  for (const record of journal.records)
    if (
      record.type === 'FAILED' &&
      record.owner.host === parts.owner.host &&
      record.owner.bootId === parts.owner.bootId
    )
      throw new CommitError(
        'COMMIT_FLUSH_FAILED',
        `${record.image}: a flush failed, and the system may show what is not on the disk; restart the machine, or unmount and mount the file system and say --after-failed-flush`,
        { image: record.image },
      );
}

/**
 * The plan with its images where they are now. A journal may be read on another machine: the directory and the device number may differ;
 * inode, format, sizes and, while they are still needed as sources, length and time of change must not.
 */
async function foundAgain(
  search: Search,
  needsSources: boolean,
): Promise<Omit<FoundAgain, 'environment'>> {
  const { journal, parts, goesOn } = search;
  const plan = inPlace(journal);
  const images: LayerFacts[] = [];
  const gone = new Set<NodeId>();
  for (const [index, then] of plan.images.entries()) {
    const { path } = then;
    const { node } = then;
    if (index >= plan.chainLength && !plan.writes.includes(node) && !plan.reads.includes(node)) {
      images.push(await toBeMarked(then, parts.backend));
      continue;
    }
    const now = await lookAgain(then, search);
    if (now === null) {
      const isLost = plan.invalidates.some((one) => one.node === node);
      if (!isLost || (goesOn && (needsSources || plan.writes.includes(node))))
        throw notThere(path, journal, goesOn && needsSources && isLost);
      gone.add(node);
      images.push(then);
      continue;
    }
    const isUsed = search.borrowed !== null && index === plan.chainLength - 1;
    const changed = differenceOf(plan, then, now, { needsSources, isUsed });
    if (changed !== null)
      throw new CommitError(
        'COMMIT_CHANGED',
        `${path}: ${changed} since the job was interrupted; it is not safe to go on`,
        { image: path },
      );
    images.push({ ...then, identity: now.identity });
  }
  return { plan: { ...plan, images }, gone };
}

function notThere(image: string, { path }: Journal, canBeGivenUp: boolean): CommitError {
  const leaf = path.slice(0, -journalPath('').length);
  const way = canBeGivenUp
    ? `give the job up: downfold abort '${leaf}'`
    : `if it is lost for good, all that is left is to remove the journal '${path}'`;
  return new CommitError(
    'COMMIT_CHANGED',
    `${image}: is not there, and the interrupted job needs it: move this very file back (a copy is another file), or ${way}`,
    { image },
  );
}

/** An image that is only to be marked may be gone by now; whether it is the same file is seen when it is opened. */
async function toBeMarked(then: LayerFacts, backend: StorageBackend): Promise<LayerFacts> {
  const identity = await identityOf(then.path, backend);
  return identity?.inode === then.identity.inode ? { ...then, identity } : then;
}

/** Null: it is not there. */
async function lookAgain(
  then: LayerFacts,
  { parts, environment, borrowed }: Search,
): Promise<LayerFacts | null> {
  const identity = await identityOf(then.path, parts.backend);
  if (identity === null) return null;
  const lent = await borrowed?.factsOf(identity, then, parts.backend);
  if (lent !== undefined) return lent;
  const layer = await openLayer({ ...then, identity }, 'read', environment);
  await using image = layer.image;
  return await factsOf(then.node, then.path, image, parts.backend);
}

/** What is different in a way that forbids to go on; null: nothing. `isUsed`: the guest may have written to it, and made it larger. */
function differenceOf(
  plan: CommitPlan,
  then: LayerFacts,
  now: LayerFacts,
  { needsSources, isUsed }: { readonly needsSources: boolean; readonly isUsed: boolean },
): string | null {
  if (then.identity.inode !== now.identity.inode) return 'another file has its name';
  const sizes = [
    then.geometry.virtualSize,
    ...(then.node === plan.request.base && plan.growBaseTo !== null ? [plan.growBaseTo] : []),
  ];
  if (!isUsed && !sizes.includes(now.geometry.virtualSize))
    return `its virtual size changed to ${now.geometry.virtualSize}`;
  // what a job only stands on may be another one's to relink
  if (isFoundation(plan, then)) return null;
  const relink = plan.relinks.find(({ overlay }) => overlay === then.node);
  const names = [then.backing?.name, ...(relink === undefined ? [] : [relink.to?.name])];
  if (!names.includes(now.backing?.name))
    return `its backing file changed to '${now.backing?.name ?? 'none'}'`;
  if (isUsed || !needsSources || !plan.reads.includes(then.node)) return null;
  if (then.fileLength !== now.fileLength)
    return `its length changed from ${then.fileLength} to ${now.fileLength}`;
  if (then.modified !== now.modified) return 'it was written to';
  return null;
}
