import type { ChainEnvironment, NodeId } from '@downfold/chain';
import type { Staging } from '@downfold/image';
import { type Borrowed, borrowedBy } from './borrowed.ts';
import { CommitError } from './errors.ts';
import { positionOf } from './execute.ts';
import { failedSinceBoot, notingFailedFlush } from './failed-flush.ts';
import type { Journal } from './journal.ts';
import { assertOrphan } from './journals.ts';
import { type Layers, openLayers } from './layers.ts';
import type { LiveDisk } from './live.ts';
import { lockPlan } from './lock-plan.ts';
import { markAbandoned } from './marks.ts';
import type { EngineParts, Position } from './parts.ts';
import { type CommitPlan, pathOf } from './plan.ts';
import { asFound, isComplete, planFoundAgain } from './resume.ts';
import { invalidated } from './step-runner.ts';

/** What giving a job up came to. Plain JSON. */
export interface AbortResult {
  readonly job: string;
  readonly strategy: string;
  /** Every image of the pool reads as it did before the job. */
  readonly undone: boolean;
  /** Paths of images whose content is of no point in time now, marked so unless a server holds them raw; images above them read as before. */
  readonly mixed: readonly string[];
  /** Paths of images that are not there any more; it was not the job that removed them, and what reads through them cannot be read. */
  readonly gone: readonly string[];
  /** Images of no point in time that could not be marked so, and why. */
  readonly unmarked: readonly { readonly image: string; readonly why: string }[];
  /** Clusters given back that the job had taken; none after a failed flush, until a check gives them back. */
  readonly clustersFreed: number;
}

/**
 * Gives an interrupted job up: what was only staged is given back; images that were being changed are marked; the journal goes.
 * Whoever the plan preserves reads as before. Idempotent: interrupted itself, it is called again. Owns the journal.
 * @throws CommitError `COMMIT_PAST_ABORT` when all data is in place already: then only `resume` leads anywhere
 */
export async function abortJob(
  parts: EngineParts,
  environment: ChainEnvironment,
  open: Journal,
  live?: LiveDisk,
): Promise<AbortResult> {
  await using journal = open;
  assertOrphan(parts, journal);
  await notingFailedFlush(journal, parts, () => journal.settle());
  if (journal.records.some(({ type }) => type === 'DONE' || type === 'PIVOT'))
    throw pastAbort(journal);
  const borrowed = borrowedBy(live === undefined ? {} : { live });
  await using locks = await lockPlan(await asFound(journal, parts), environment, borrowed);
  const found = await planFoundAgain({ parts, environment, journal, borrowed, goesOn: false });
  const { plan, environment: inside, gone } = found;
  const position = positionOf(journal.records);
  await using layers = await openLayers(plan, { environment: inside, locks, borrowed, gone });
  // what is only staged has ended nobody's meaning yet
  const nodes = isOnlyStaged(position)
    ? []
    : [...invalidated(journal)].filter((node) => !gone.has(node));
  const mark = { job: journal.intent.job, date: parts.clock.date() };
  const { clustersFreed, mixed, unmarked } = await notingFailedFlush(journal, parts, async () => {
    await giveUpStagings(plan, layers, position, journal, gone);
    const freed = await giveBack({ parts, journal, position, plan, layers, gone, borrowed });
    await layers.putInPlace();
    const marked = await markAbandoned(nodes, layers, parts.backend, mark);
    return { clustersFreed: freed, ...marked };
  });
  await journal.remove();
  const path = (node: NodeId): string => pathOf(plan, node);
  return {
    job: journal.intent.job,
    strategy: plan.strategy.name,
    undone: mixed.length + unmarked.length === 0,
    mixed: mixed.map(path),
    gone: [...gone].map(path),
    unmarked: unmarked.map(({ node, why }) => ({ image: path(node), why })),
    clustersFreed,
  };
}

/** Whether all that was written lies in fresh clusters, which nothing refers to yet. */
function isOnlyStaged({ stagings }: Position): boolean {
  return Object.keys(stagings).length > 0;
}

/** Lets what was only staged go. @throws CommitError `COMMIT_PAST_ABORT` */
async function giveUpStagings(
  plan: CommitPlan,
  layers: Layers,
  position: Position,
  journal: Journal,
  gone: ReadonlySet<NodeId>,
): Promise<void> {
  if (journal.records.some(({ type }) => type === 'ABORT')) return;
  const stagings = await openStagings(plan, layers, position, gone);
  // a publish may have come through that no cursor tells of
  if (isComplete(position) || stagings.some(({ published }) => published)) throw pastAbort(journal);
  // from here on there is no way back: a staging that is going cannot be gone on with
  await journal.append({ type: 'ABORT' });
  for (const staging of stagings) await staging.discard();
}

/** What giving clusters back needs. */
interface Taken {
  readonly parts: EngineParts;
  readonly journal: Journal;
  readonly position: Position;
  readonly plan: CommitPlan;
  readonly layers: Layers;
  readonly gone: ReadonlySet<NodeId>;
  readonly borrowed: Borrowed | null;
}

/**
 * Gives back what the job had taken for nothing. Not after a flush that failed since the machine was started, when the job had begun to overwrite or
 * deallocate: what seems unused in memory may still be mapped on the disk, where a hole would be punched into it; and leaks do no harm.
 */
async function giveBack({
  parts,
  journal,
  position,
  plan,
  layers,
  gone,
  borrowed,
}: Taken): Promise<number> {
  const isChanged = invalidated(journal).size > 0 && !isOnlyStaged(position);
  if (isChanged && failedSinceBoot(parts, journal) !== null) return 0;
  let freed = 0;
  for (const node of plan.writes) {
    if (gone.has(node)) continue;
    const { image, facts } = layers.get(node);
    // what seems to leak there belongs to requests
    if (borrowed?.isActive(facts.identity) !== true) freed += await image.reclaimLeaks({});
  }
  return freed;
}

async function openStagings(
  plan: CommitPlan,
  layers: Layers,
  { stagings }: Position,
  gone: ReadonlySet<NodeId>,
): Promise<readonly Staging[]> {
  const open: Staging[] = [];
  for (const [node, from] of Object.entries(stagings)) {
    if (gone.has(node)) continue;
    const { image } = layers.get(node);
    const virtualSize = plan.growBaseTo ?? image.geometry.virtualSize;
    open.push(await image.stage({ virtualSize, from, fill: layers.below(node) }));
  }
  return open;
}

function pastAbort(journal: Journal): CommitError {
  return new CommitError(
    'COMMIT_PAST_ABORT',
    `${journal.path}: all data is in place already; only links and marks are missing: downfold resume`,
    { journal: journal.path },
  );
}
