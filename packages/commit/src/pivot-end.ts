import type { ChainEnvironment } from '@downfold/chain';
import type { Borrowed } from './borrowed.ts';
import { deleteInvalid, NOT_DELETED } from './delete.ts';
import type { Journal } from './journal.ts';
import { type Layers, openLayers } from './layers.ts';
import { lockPlan } from './lock-plan.ts';
import { markAbandoned, retire } from './marks.ts';
import { type CommitResult, type Job, type Position, START } from './parts.ts';
import { pathOf } from './plan.ts';
import { resultOf } from './result.ts';
import { invalidated, type StepRunner } from './step-runner.ts';

/** The user wanted a copy in base, not another disk: links are as they were, and images between are what they are no time's content of. */
export async function leftAsCopy(
  job: Job,
  layers: Layers,
  journal: Journal,
  runner: StepRunner,
  from: Position,
  started: number,
): Promise<CommitResult> {
  const { parts, plan } = job;
  const { base, top } = plan.request;
  const nodes = [...invalidated(journal)].filter((node) => node !== base && node !== top);
  const mark = { job: journal.intent.job, date: parts.clock.date() };
  const { unmarked } = await markAbandoned(nodes, layers, parts.backend, mark);
  for (const { node, why } of unmarked) runner.unmarked.push({ image: pathOf(plan, node), why });
  await journal.remove();
  const invalidates = plan.invalidates.filter(({ node }) => node !== top);
  const copied = { ...job, plan: { ...plan, invalidates } };
  return resultOf(copied, journal, runner, from, { ...NOT_DELETED, started });
}

/** Goes on with a job after its pivot: base is the disk, perhaps in use again, and is left alone; the others are marked. */
export async function finishPivoted(
  job: Job,
  journal: Journal,
  borrowed: Borrowed | null,
): Promise<CommitResult> {
  const { parts, plan, environment, options } = job;
  const started = parts.clock.now();
  const lost = plan.invalidates.map(({ node }) => node);
  const images = plan.images.filter(({ node }) => lost.includes(node));
  const marked = { ...plan, images, chainLength: 0, writes: [], reads: [], relinks: [] };
  await using locks = await lockPlan(marked, environment, borrowed);
  await using layers = await openLayers(marked, {
    environment: markable(environment),
    locks,
    borrowed,
  });
  const unmarked: { image: string; why: string }[] = [];
  const date = parts.clock.date();
  for (const node of lost) {
    const why = await retire(node, { backend: parts.backend, layers, journal, date });
    if (why !== null) unmarked.push({ image: pathOf(plan, node), why });
  }
  const closed = (): PromiseLike<void> => layers[Symbol.asyncDispose]();
  const deleted =
    options.deleteIntermediates === true ? await deleteInvalid(job, journal, closed) : NOT_DELETED;
  await journal.remove();
  const nothing = { ...START, unmarked, verified: false };
  return resultOf(job, journal, nothing, START, { ...deleted, started });
}

/** An environment in which what is marked already may be opened. */
function markable(environment: ChainEnvironment): ChainEnvironment {
  return { ...environment, policy: { ...environment.policy, allowMarked: true } };
}
