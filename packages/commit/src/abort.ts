import type { ChainEnvironment, NodeId } from '@downfold/chain';
import type { Staging } from '@downfold/image';
import { borrowedBy } from './borrowed.ts';
import { CommitError } from './errors.ts';
import { positionOf } from './execute.ts';
import type { Journal } from './journal.ts';
import { inPlace } from './journal-plan.ts';
import { type Layers, openLayers } from './layers.ts';
import type { LiveDisk } from './live.ts';
import { lockPlan } from './lock-plan.ts';
import { markAbandoned } from './marks.ts';
import type { EngineParts, Position } from './parts.ts';
import { type CommitPlan, pathOf } from './plan.ts';
import { assertOrphan, isComplete, planFoundAgain } from './resume.ts';
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
  /** Clusters given back that the job had taken. */
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
  if (journal.records.some(({ type }) => type === 'DONE' || type === 'PIVOT'))
    throw pastAbort(journal);
  const borrowed = borrowedBy(live === undefined ? {} : { live });
  await using locks = await lockPlan(inPlace(journal), environment, borrowed);
  const found = await planFoundAgain({ parts, environment, journal, borrowed, goesOn: false });
  const { plan, environment: inside, gone } = found;
  const position = positionOf(journal.records);
  await using layers = await openLayers(plan, { environment: inside, locks, borrowed, gone });
  const given = journal.records.some(({ type }) => type === 'ABORT');
  if (!given) {
    const stagings = await openStagings(plan, layers, position);
    // a publish may have come through that no cursor tells of
    if (isComplete(position) || stagings.some(({ published }) => published))
      throw pastAbort(journal);
    // from here on there is no way back: a staging that is going cannot be gone on with
    await journal.append({ type: 'ABORT' });
    for (const staging of stagings) await staging.discard();
  }
  let clustersFreed = 0;
  for (const node of plan.writes) {
    if (gone.has(node)) continue;
    const { image, facts } = layers.get(node);
    // what seems to leak there belongs to requests
    if (borrowed?.isActive(facts.identity) !== true) clustersFreed += await image.reclaimLeaks({});
  }
  await layers.putInPlace();
  // what is only staged has ended nobody's meaning yet
  const onlyStaged = Object.keys(position.stagings).length > 0;
  const nodes = onlyStaged ? [] : [...invalidated(journal)].filter((node) => !gone.has(node));
  const mark = { job: journal.intent.job, date: parts.clock.date() };
  const mixed = await markAbandoned(nodes, layers, parts.backend, mark);
  await journal.remove();
  const path = (node: NodeId): string => pathOf(plan, node);
  return {
    job: journal.intent.job,
    strategy: plan.strategy.name,
    undone: mixed.length === 0,
    mixed: mixed.map(path),
    gone: [...gone].map(path),
    clustersFreed,
  };
}

async function openStagings(
  plan: CommitPlan,
  layers: Layers,
  { stagings }: Position,
): Promise<readonly Staging[]> {
  const open: Staging[] = [];
  for (const [node, from] of Object.entries(stagings)) {
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
