import { posix } from 'node:path';
import { identityKey, type LayerFacts, type NodeId } from '@downfold/chain';
import { CommitError } from './errors.ts';
import { createJournal, type Journal, type JournalRecord, journalPath } from './journal.ts';
import { openLayers } from './layers.ts';
import type { CommitResult, Job, Position } from './parts.ts';
import type { CommitPlan } from './plan.ts';
import { Throttle } from './progress.ts';
import { StepRunner } from './step-runner.ts';
import { chainView } from './view.ts';

/**
 * Runs a plan from the start: checks every image, writes INTENT and INVALIDATES, then the strategy's steps. Order of steps: facts on
 * crash safety, 2.5, P0 to P11.
 */
export async function execute(job: Job): Promise<CommitResult> {
  const { parts, environment, plan } = job;
  const started = parts.clock.now();
  const leaf = plan.images[plan.chainLength - 1] as LayerFacts;
  await using layers = await openLayers(plan, environment);
  await layers.assertUnchanged(parts.backend);
  await layers.preflight(plan, job.options, environment.signal);
  const id = parts.newJobId();
  const intent = {
    type: 'INTENT',
    format: 1,
    job: id,
    owner: parts.owner,
    plan: relativeTo(plan, posix.dirname(leaf.path)),
  } as const;
  await using journal = await createJournal(parts.backend, journalPath(leaf.path), intent);
  await journal.append({ type: 'INVALIDATES', nodes: plan.invalidates.map(({ node }) => node) });
  return await runSteps(job, layers, journal, { cursor: null, copied: 0, zeroed: 0 }, started);
}

/** Runs the strategy's steps from a position to the end. */
export async function runSteps(
  job: Job,
  layers: Awaited<ReturnType<typeof openLayers>>,
  journal: Journal,
  from: Position,
  started: number,
): Promise<CommitResult> {
  const { parts, plan, strategy, options } = job;
  const throttle = options.throttle ?? new Throttle(0, parts.clock);
  const runner = new StepRunner({
    layers,
    journal,
    plan,
    options,
    throttle,
    from,
    date: parts.clock.date(),
  });
  const view = chainView(layers.chain, layers.others, layers.stranded);
  try {
    for await (const batch of strategy.steps(plan, view, from.cursor))
      for (const step of batch) await runner.run(step);
    await runner.finish();
  } catch (cause) {
    await runner.stop(cause);
    if (options.signal?.aborted === true && cause === options.signal.reason)
      throw new CommitError(
        'COMMIT_CANCELLED',
        `stopped after ${runner.copied} bytes; go on with: downfold resume '${leafPath(plan)}'`,
        { copied: runner.copied },
        cause,
      );
    throw cause;
  }
  const deleted =
    options.deleteIntermediates === true ? await deleteIntermediates(job, journal, layers) : [];
  await journal.remove();
  const pathOf = (node: NodeId): string =>
    (plan.images.find((one) => one.node === node) as LayerFacts).path;
  return {
    strategy: plan.strategy.name,
    job: journal.intent.job,
    bytesCopied: runner.copied - from.copied,
    bytesZeroed: runner.zeroed - from.zeroed,
    bytesSkippedByResume: from.copied,
    cases: plan.cases,
    invalidated: plan.invalidates.map(({ node }) => pathOf(node)),
    unmarked: runner.unmarked,
    relinked: plan.relinks.map(({ overlay, to }) => ({ image: pathOf(overlay), backing: to.name })),
    verified: runner.verified,
    deleted,
    seconds: (parts.clock.now() - started) / 1000,
  };
}

function leafPath(plan: CommitPlan): string {
  return (plan.images[plan.chainLength - 1] as LayerFacts).path;
}

/** P11: unlinks the images between base and top; only after DONE is durable, since a resumed job would need them before. */
async function deleteIntermediates(
  { parts, plan }: Job,
  journal: Journal,
  layers: Awaited<ReturnType<typeof openLayers>>,
): Promise<readonly string[]> {
  if (!journal.records.some(({ type }) => type === 'DONE')) await journal.append({ type: 'DONE' });
  await layers[Symbol.asyncDispose]();
  const from = plan.images.findIndex(({ node }) => node === plan.request.base);
  const to = plan.images.findIndex(({ node }) => node === plan.request.top);
  const deleted: string[] = [];
  for (const { path, identity } of plan.images.slice(from + 1, to)) {
    const facts = await parts.backend.facts(path);
    if (identityKey(facts.identity) !== identityKey(identity)) continue;
    await parts.backend.remove(path);
    await parts.backend.flushDirectory(posix.dirname(path), 'delete: intermediate');
    deleted.push(path);
  }
  return deleted;
}

/** A plan whose paths are relative to a directory, so that its journal works wherever the files are mounted. */
export function relativeTo(plan: CommitPlan, directory: string): CommitPlan {
  return {
    ...plan,
    images: plan.images.map((facts) => ({ ...facts, path: posix.relative(directory, facts.path) })),
  };
}

/** The last position that a journal's records say is durable. */
export function positionOf(records: readonly JournalRecord[]): Position {
  let position: Position = { cursor: null, copied: 0, zeroed: 0 };
  for (const record of records) if (record.type === 'PROGRESS') position = record;
  return position;
}
