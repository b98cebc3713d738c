import { posix } from 'node:path';
import {
  type ChainEnvironment,
  factsOf,
  identityKey,
  identityOf,
  type LayerFacts,
  type NodeId,
  openLayer,
  scanPool,
  strandedBy,
} from '@downfold/chain';
import { isUrl, type StorageBackend } from '@downfold/storage';
import { type Borrowed, borrowedBy } from './borrowed.ts';
import { deleteFiles } from './delete.ts';
import { CommitError } from './errors.ts';
import { assertRunnable, positionOf, runSteps, stopped } from './execute.ts';
import { assertFlushesHeld, notingFailedFlush } from './failed-flush.ts';
import { isFoundation } from './foundation.ts';
import { type Journal, type JournalRecord, pivotIn } from './journal.ts';
import { inPlace, leafBeside } from './journal-plan.ts';
import { assertOrphan } from './journals.ts';
import { isLinked, type Layers, openLayers } from './layers.ts';
import { lockPlan } from './lock-plan.ts';
import type { CommitResult, EngineParts, Job, Position, RunOptions } from './parts.ts';
import { finishPivoted } from './pivot-end.ts';
import type { CommitPlan } from './plan.ts';
import { assertReferencesLead } from './references.ts';
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
  await notingFailedFlush(journal, parts, () => journal.settle());
  if (journal.records.some(({ type }) => type === 'DONE')) {
    const plan = inPlace(journal);
    return await finishDone(
      { parts, environment, plan, strategy: strategyFor(plan), options },
      journal,
    );
  }
  const borrowed = borrowedBy(options);
  if (pivotIn(journal) !== null) {
    const plan = await asFound(journal, parts);
    const job: Job = { parts, environment, plan, strategy: strategyFor(plan), options };
    return await finishPivoted(job, journal, borrowed);
  }
  await using locks = await lockPlan(await asFound(journal, parts), environment, borrowed);
  const found = await planFoundAgain({ parts, environment, journal, borrowed, goesOn: true });
  const { plan, environment: inside, gone } = found;
  const job: Job = { parts, environment: inside, plan, strategy: strategyFor(plan), options };
  assertRunnable(job);
  await using layers = await openLayers(plan, { environment: inside, locks, borrowed, gone });
  await assertReferencesLead(plan, layers, inside);
  await assertNobodyNew(plan, journal, inside);
  await journal.append({ type: 'RESUMED', owner: parts.owner });
  const position = goesOnFrom(plan, layers, journal);
  try {
    await makeSound(job, layers, position, borrowed);
  } catch (cause) {
    // a flush that fails here may have lost what the process before wrote, and is as final
    throw await stopped(job, journal, { copied: position.copied, unsaved: [] }, cause);
  }
  await layers.putInPlace();
  const asBegan = { ...job, options: optionsOf(job, journal) };
  return await runSteps(asBegan, layers, journal, position, started);
}

/** Records from which on images outside the chain may have lost what they read, or read it through base already. */
const LATE: ReadonlySet<JournalRecord['type']> = new Set(['INVALIDATES', 'PUBLISH', 'SWITCH']);

/**
 * As long as nobody has lost anything: images that were made since the job was planned, and read through what it changes, are in its way as those are that
 * were there before. @throws CommitError `COMMIT_CHANGED`
 */
async function assertNobodyNew(
  plan: CommitPlan,
  { records }: Journal,
  environment: ChainEnvironment,
): Promise<void> {
  if (plan.request.operation !== 'commit' || records.some(({ type }) => LATE.has(type))) return;
  const chain = plan.images.slice(0, plan.chainLength);
  const at = (node: NodeId | null): number => chain.findIndex((one) => one.node === node);
  const files = chain.slice(at(plan.request.base), at(plan.request.top) + 1);
  const directories = files
    .filter(({ path }) => !isUrl(path))
    .map(({ path }) => posix.dirname(path));
  const there = await Promise.all(
    plan.pools.map(async (pool) => (await identityOf(pool, environment.backend)) !== null),
  );
  const pools = plan.pools.filter((_, index) => there[index]);
  const graph = await scanPool([...directories, ...pools], environment, { recursive: false });
  const known = new Set(plan.images.map(({ identity }) => identityKey(identity)));
  const stranger = strandedBy(
    graph,
    files.map(({ identity }) => identity),
  ).find(({ mark, identity }) => mark === null && !known.has(identityKey(identity)));
  if (stranger !== undefined)
    throw new CommitError(
      'COMMIT_CHANGED',
      `${stranger.path}: reads through what the job changes, and was not there when it was planned; give the job up (downfold abort), and plan again`,
      { image: stranger.path },
    );
}

/**
 * Where a job goes on. What an image receives of a stream or a rebase depends on what it holds, which somebody may have changed since all was in place:
 * as long as it is not relinked it is gone through again, and what is there already costs nothing.
 */
function goesOnFrom(plan: CommitPlan, layers: Layers, { records }: Journal): Position {
  const position = positionOf(records);
  const { operation, top, unsafe } = plan.request;
  const relink = plan.relinks.find(({ overlay }) => overlay === top);
  if (operation === 'commit' || unsafe || relink === undefined) return position;
  return isLinked(layers.get(top).image, relink.to) ? position : { ...position, cursor: null };
}

/** How a job goes on that was begun with `verify`: what it wrote is compared, whoever goes on, as far as it can be. */
function optionsOf({ plan, strategy, options }: Job, { intent }: Journal): RunOptions {
  const cannot = options.live !== undefined && plan.request.operation !== 'commit';
  if (intent.verify !== true || cannot || strategy.pivots === true) return options;
  return { ...options, verify: true };
}

/** Makes what a killed process left in the images that are written durable, and gives back what it took for nothing. */
async function makeSound(
  { plan, options }: Job,
  layers: Layers,
  position: Position,
  borrowed: Borrowed | null,
): Promise<void> {
  for (const node of plan.writes) {
    const { image, facts } = layers.get(node);
    // it was made sound before the disk was used, and what seems to leak belongs to requests
    if (borrowed?.isActive(facts.identity) === true) continue;
    // a source is not written before all data is in place, and whoever goes on next is to find it as it was
    if (plan.reads.includes(node) && !isComplete(position)) continue;
    // what a killed process wrote shows here, and may still be lost to a power cut
    await image.flush();
    // what the crash left counted but unreferenced is given back before anything is written
    await image.reclaimLeaks({ signal: options.signal, keep: position.stagings[node] ?? null });
  }
}

/** The plan of a journal, with the identities that its images have now: a device may have another number since the machine was started. */
export async function asFound(journal: Journal, parts: EngineParts): Promise<CommitPlan> {
  const plan = inPlace(journal);
  const rebooted = isRebooted(journal, parts);
  const images = plan.images.map((one) => toBeMarked(one, rebooted, parts.backend));
  return { ...plan, images: await Promise.all(images) };
}

/** Goes on with a job of which all is done but deleting what lost its meaning. */
async function finishDone(job: Job, journal: Journal): Promise<CommitResult> {
  const started = job.parts.clock.now();
  const position = positionOf(journal.records);
  const deleted = await deleteFiles(job, journal);
  await journal.remove();
  const nothing = { ...position, unmarked: [], verified: false };
  return resultOf(job, journal, nothing, position, { ...deleted, started });
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
  const isSwitched = journal.records.some(({ type }) => type === 'SWITCH');
  const isPulled = journal.intent.plan.request.operation !== 'commit';
  const isDone = isComplete(positionOf(journal.records)) && (isSwitched || !isPulled);
  const needsSources = search.goesOn && !isDone;
  const found = await foundAgain({ ...search, environment: inside }, needsSources);
  return { ...found, environment: inside };
}

/** All data is where it shall be: sources are not needed any more, and may be relinked or emptied. */
export function isComplete({ cursor }: Position): boolean {
  return cursor?.['complete'] === true;
}

function assertNotAborted(journal: Journal): void {
  if (journal.records.some(({ type }) => type === 'ABORT'))
    throw new CommitError(
      'COMMIT_ABORTED',
      `${journal.path}: this job was given up, and the giving up was interrupted; finish it with: downfold abort`,
      { journal: journal.path },
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
  const rebooted = isRebooted(journal, parts);
  const images: LayerFacts[] = [];
  const gone = new Set<NodeId>();
  for (const [index, then] of plan.images.entries()) {
    const { path } = then;
    const { node } = then;
    if (index >= plan.chainLength && !plan.writes.includes(node) && !plan.reads.includes(node)) {
      images.push(await toBeMarked(then, rebooted, parts.backend));
      continue;
    }
    const now = await lookAgain(then, search);
    if (now === null) {
      const isLost = plan.invalidates.some((one) => one.node === node);
      const isBase = node === plan.request.base;
      // who gives up marks base, and what is lost where it is there
      const isMissed = goesOn
        ? !isLost || needsSources || plan.writes.includes(node)
        : isBase && plan.request.operation === 'commit';
      if (isMissed) throw notThere(path, journal, goesOn && needsSources && !isBase);
      gone.add(node);
      images.push(then);
      continue;
    }
    const isUsed = search.borrowed !== null && index === plan.chainLength - 1;
    const isNeeded = goesOn || positionOf(journal.records).stagings[node] !== undefined;
    const changed = differenceOf(plan, then, now, { isNeeded, needsSources, isUsed, rebooted });
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

function notThere(image: string, journal: Journal, canBeGivenUp: boolean): CommitError {
  const leaf = leafBeside(journal);
  const way = canBeGivenUp
    ? `give the job up: downfold abort '${leaf}'`
    : `if it is lost for good, all that is left is to remove the journal '${journal.path}'`;
  return new CommitError(
    'COMMIT_CHANGED',
    `${image}: is not there, and the interrupted job needs it: move this very file back (a copy is another file), or ${way}`,
    { image },
  );
}

/** An image that is only to be marked may be gone by now; whether it is the same file is seen when it is opened. */
async function toBeMarked(
  then: LayerFacts,
  rebooted: boolean,
  backend: StorageBackend,
): Promise<LayerFacts> {
  // whatever has its name now counts as another one
  if (rebooted && then.identity.inode === NAMELESS)
    return { ...then, identity: { ...then.identity, inode: 'of another boot' } };
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

/** What may have happened since a job was interrupted. */
interface Since {
  /** The job goes on with it, or has something on it that only it knows the place of. Else it is enough that it is the same file. */
  readonly isNeeded: boolean;
  readonly needsSources: boolean;
  /** The guest may have written to the image, and made it larger. */
  readonly isUsed: boolean;
  /** Devices may have other numbers than then. */
  readonly rebooted: boolean;
}

/** Whether the machine is another one than that of the job's first process, or was started since: a boot's id is its own, a host's name may be a container's. */
function isRebooted({ intent }: Journal, { owner }: EngineParts): boolean {
  return intent.owner.bootId !== owner.bootId;
}

/** In place of the inode of a block device that says nothing of itself: after a start of the machine its path may lead to another one. */
const NAMELESS = '0';

/** What is different in a way that forbids to go on; null: nothing. */
function differenceOf(
  plan: CommitPlan,
  then: LayerFacts,
  now: LayerFacts,
  { isNeeded, needsSources, isUsed, rebooted }: Since,
): string | null {
  if (then.identity.inode !== now.identity.inode) return 'another file has its name';
  if (then.identity.inode === NAMELESS && rebooted)
    return 'it is a block device without a name of its own, and the machine was started';
  if (!isNeeded) return null;
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
  if (then.modified !== now.modified || then.dataFile?.modified !== now.dataFile?.modified)
    return 'it was written to';
  return null;
}
