import { posix } from 'node:path';
import { BackOff } from './back-off.ts';
import { applyBitmaps, pauseBitmaps, saveBitmaps, saveBitmapsIfPossible } from './bitmaps.ts';
import { borrowedBy } from './borrowed.ts';
import { deleteInvalid, NOT_DELETED } from './delete.ts';
import { CommitError, storageErrorIn } from './errors.ts';
import { noteFailedFlush } from './failed-flush.ts';
import { createJournal, type Journal, type JournalRecord, journalPath, leafOf } from './journal.ts';
import { relativeTo } from './journal-plan.ts';
import { type Layers, openLayers } from './layers.ts';
import type { LiveMirror } from './live.ts';
import { lockPlan } from './lock-plan.ts';
import { clearMixed } from './marks.ts';
import { type CommitResult, type Job, type Position, START } from './parts.ts';
import { leftAsCopy } from './pivot-end.ts';
import { Throttle } from './progress.ts';
import { assertReferencesLead } from './references.ts';
import { resultOf } from './result.ts';
import { StepRunner } from './step-runner.ts';
import { chainView, factsOfPlan } from './view.ts';

/**
 * Runs a plan from the start: checks every image, writes INTENT, then the strategy's steps. Order of steps: facts on
 * crash safety, 2.5, P0 to P11.
 */
export async function execute(job: Job): Promise<CommitResult> {
  const { parts, environment, plan } = job;
  const started = parts.clock.now();
  const leaf = leafOf(plan);
  const borrowed = borrowedBy(job.options);
  assertRunnable(job);
  await using locks = await lockPlan(plan, environment, borrowed);
  await using layers = await openLayers(plan, { environment, locks, borrowed });
  await layers.assertUnchanged(parts.backend);
  await layers.preflight(job.options, environment.signal);
  await assertReferencesLead(plan, layers, environment);
  await layers.putInPlace();
  const intent = {
    type: 'INTENT',
    format: 1,
    job: parts.newJobId(),
    owner: parts.owner,
    // what opening mended is another file, to those who go on, unless it is said
    plan: relativeTo(
      { ...plan, images: await layers.factsNow(parts.backend) },
      posix.dirname(leaf),
    ),
    ...(job.options.verify === true ? { verify: true } : {}),
  } as const;
  await using journal = await createJournal(parts.backend, journalPath(leaf), intent);
  return await runSteps(job, layers, journal, START, started);
}

/** @throws CommitError `COMMIT_UNSUPPORTED` when a strategy needs, or cannot have, a disk in use */
export function assertRunnable({ plan, strategy, options }: Job): void {
  const file = leafOf(plan);
  const refuse = (why: string): never => {
    throw new CommitError('COMMIT_UNSUPPORTED', `${file}: ${why}`, { image: file });
  };
  if (strategy.pivots === true && options.live === undefined)
    refuse(
      `strategy '${strategy.name}' commits the active layer of a disk in use, and nobody uses it; to give up a job that was interrupted: downfold abort '${file}'`,
    );
  // what was copied is compared with what it came from, and the guest changes it at once
  if (options.live !== undefined && options.verify === true && plan.request.operation !== 'commit')
    refuse('what is pulled into a disk in use cannot be verified');
  if (strategy.pivots === true && options.verify === true)
    refuse('what is committed of a disk in use cannot be verified');
}

/** Runs the strategy's steps from a position to the end. */
export async function runSteps(
  job: Job,
  layers: Layers,
  journal: Journal,
  from: Position,
  started: number,
): Promise<CommitResult> {
  const { parts, plan, strategy, options } = job;
  const view = chainView(factsOfPlan(plan, abilities(job)), layers);
  const mirror = mirrorOf(job, layers);
  const backOff = backOffOf(job);
  const runner = new StepRunner({
    backend: parts.backend,
    layers,
    view,
    journal,
    plan,
    options,
    throttle: options.throttle ?? new Throttle(0, parts.clock),
    from,
    mirror,
    backOff,
    date: parts.clock.date(),
  });
  try {
    // before the first checkpoint it may have been cut short; what was done is not done twice
    if (from === START) await applyBitmaps(plan, layers);
    else await pauseBitmaps(plan, layers);
    for await (const batch of strategy.steps(plan, view, from.cursor)) {
      for (const step of batch) if (!runner.gather(step)) await runner.run(step);
      if (runner.ending === 'cancel') break;
    }
    if (runner.ending === 'cancel')
      return await leftAsCopy(job, layers, journal, runner, from, started);
    await runner.finish();
    await clearMixed(plan, layers, parts.backend);
    await saveBitmaps(layers);
    const deleted =
      options.deleteIntermediates === true
        ? await deleteInvalid(job, journal, () => layers[Symbol.asyncDispose]())
        : NOT_DELETED;
    await journal.remove();
    return resultOf(job, journal, runner, from, { ...deleted, started });
  } catch (cause) {
    const first = await runner.stop(cause);
    const unsaved = await saveBitmapsIfPossible(layers);
    throw await stopped(job, journal, { copied: runner.copied, unsaved }, first);
  } finally {
    mirror?.stop();
    backOff?.stop();
  }
}

function backOffOf({ parts, options: { live } }: Job): BackOff | null {
  return live === undefined ? null : new BackOff(live.latency, parts.clock);
}

/** From before the first step on it knows what changes. */
function mirrorOf({ strategy, plan, options }: Job, layers: Layers): LiveMirror | null {
  const { base } = plan.request;
  if (strategy.pivots !== true || base === null) return null;
  return options.live?.mirror(layers.get(base).image) ?? null;
}

/** Whether a format, by name, has an ability. */
export function abilities({
  parts,
}: Pick<Job, 'parts'>): (
  format: string,
  ability: 'deallocate' | 'mark' | 'stage' | 'zero',
) => boolean {
  return (format, ability) =>
    parts.formats.find(({ name }) => name === format)?.abilities.has(ability) ?? false;
}

/** How far a job came, and the images whose bitmaps could not be saved. */
interface Left {
  readonly copied: number;
  readonly unsaved: readonly string[];
}

/** What a job rejects with that failed of `cause`: how far it came, why it stopped, and how to go on. A failed flush is written down, for those who resume. */
export async function stopped(
  job: Job,
  journal: Journal,
  { copied, unsaved }: Left,
  cause: unknown,
): Promise<unknown> {
  const { options, parts, plan } = job;
  const resume = `downfold resume '${leafOf(plan)}'`;
  const bitmaps =
    unsaved.length === 0
      ? []
      : [`the bitmaps of ${unsaved.join(', ')} could not be saved, and are inconsistent`];
  if (options.signal?.aborted === true && cause === options.signal.reason)
    return new CommitError(
      'COMMIT_CANCELLED',
      `${[`stopped after ${copied} bytes`, ...bitmaps].join('; ')}; go on with: ${resume}`,
      { copied },
      cause,
    );
  const error = storageErrorIn(cause);
  if (error === null) return cause;
  const stop = (happened: string, next: string): CommitError =>
    new CommitError(
      'COMMIT_STOPPED',
      `${happened}${next}`,
      { copied, happened, code: error.code, ...error.details },
      error,
    );
  if (journal.removed)
    return stop(
      `all is done but for the name of the journal: ${error.message}`,
      `; should a crash of the machine bring it back, end the job with: ${resume}`,
    );
  const story = [`stopped after ${copied} bytes: ${error.message}`];
  if (error.code !== 'STORAGE_FLUSH_FAILED')
    return stop(
      [...story, ...bitmaps].join('; '),
      `; every image is consistent; when it is mended go on with: ${resume}`,
    );
  const unsaid = await noteFailedFlush(journal, parts.owner, error);
  return stop(
    [
      ...story,
      ...unsaid,
      ...bitmaps,
      'what was written since the last checkpoint may not be on the disk',
    ].join('; '),
    `: mend it, restart the machine or mount the file system anew, then: ${resume}`,
  );
}

/** The last position that a journal's records say is durable. */
export function positionOf(records: readonly JournalRecord[]): Position {
  let position = START;
  for (const record of records) if (record.type === 'PROGRESS') position = record;
  return position;
}
