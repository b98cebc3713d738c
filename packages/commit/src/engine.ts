import { type ChainEnvironment, type ChainPolicy, defaultPolicy } from '@downfold/chain';
import { type AbortResult, abortJob } from './abort.ts';
import { type Claim, claimOf } from './claim.ts';
import { CommitError } from './errors.ts';
import { execute, positionOf } from './execute.ts';
import {
  type Journal,
  type JournalOwner,
  journalPath,
  lastOwner,
  leafOf,
  pivotIn,
  readJournal,
} from './journal.ts';
import { inPlace } from './journal-plan.ts';
import { assertNoJournal, journalBeside } from './journals.ts';
import type { LiveDisk } from './live.ts';
import type { CommitResult, EngineParts, RunOptions } from './parts.ts';
import { type CommitPlan, pathOf } from './plan.ts';
import { type PlanOptions, type PlanRequest, planRequest } from './plan-request.ts';
import { resumeJob } from './resume.ts';
import { retrying } from './retry.ts';
import type { CommitStrategy } from './strategy.ts';

/** What an interrupted job's journal says. */
export interface JournalSummary {
  readonly job: string;
  /** Paths of its images are absolute. */
  readonly plan: CommitPlan;
  /** What it needs of its images; absolute paths. */
  readonly claim: Claim;
  readonly owner: JournalOwner;
  /** Bytes copied and durable. */
  readonly copied: number;
  /** A job whose top was the active layer: path of the image that is the disk now, although the leaf still looks like it. Null: the leaf is. */
  readonly pivoted: string | null;
  /** The job was given up, and that was interrupted: all that can be done is to finish it, by `abort`. */
  readonly aborting: boolean;
}

/** How a job is given up. */
export interface AbortOptions {
  readonly signal?: AbortSignal;
  /** The disk that is in use, as for `run`. */
  readonly live?: LiveDisk;
}

/** Plans and runs jobs. Holds no state of its own: what is under way is in the journal beside the leaf. */
export interface Engine {
  /** Looks, and writes nothing. @throws CommitError, ChainError, ImageError or StorageError */
  plan(request: PlanRequest, options?: PlanOptions): Promise<CommitPlan>;
  /** Does what a plan says. @throws CommitError `COMMIT_CHANGED` when an image is not as the plan found it */
  run(plan: CommitPlan, options?: RunOptions): Promise<CommitResult>;
  /** Goes on with the job whose journal lies beside `file`. @throws CommitError `COMMIT_NO_JOURNAL` */
  resume(file: string, options?: RunOptions): Promise<CommitResult>;
  /** Gives up the job whose journal lies beside `file`. @throws CommitError `COMMIT_NO_JOURNAL` or `COMMIT_PAST_ABORT` */
  abort(file: string, options?: AbortOptions): Promise<AbortResult>;
  /** The interrupted job of `file`, or null. Writes nothing. */
  journalOf(file: string): Promise<JournalSummary | null>;
}

/** Assembles an engine. */
export function createEngine(parts: EngineParts): Engine {
  const policy: ChainPolicy = { ...defaultPolicy, ...parts.policy };
  const environment = (signal?: AbortSignal): ChainEnvironment => ({ ...parts, policy, signal });
  const goOn = async (path: string, options: RunOptions): Promise<CommitResult> =>
    resumeJob(
      parts,
      environment(options.signal),
      await journalBeside(parts.backend, path),
      (plan) => strategyOf(parts, plan.strategy),
      options,
    );
  return {
    plan: async (request, options) => {
      const strategy = strategyOf(parts, { name: request.strategy });
      await assertNoJournal(parts.backend, await parts.backend.realPath(request.file));
      return planRequest(parts, environment(options?.signal), strategy, request, options);
    },
    run: async (plan, given = {}) => {
      const options = askedOnce(given);
      const leaf = leafOf(plan);
      const strategy = strategyOf(parts, plan.strategy);
      const job = { parts, environment: environment(options.signal), plan, strategy, options };
      let begun = false;
      return retrying(async () => {
        // an attempt that failed before its journal said what it is for starts again, one that wrote that goes on
        if (begun && (await readJournal(parts.backend, journalPath(leaf))) !== null)
          return goOn(leaf, options);
        await assertNoJournal(parts.backend, leaf);
        begun = true;
        return execute(job);
      }, options);
    },
    resume: async (file, given = {}) => {
      const options = askedOnce(given);
      const path = await parts.backend.realPath(file);
      return retrying(() => goOn(path, options), options);
    },
    abort: async (file, options) => {
      const path = await parts.backend.realPath(file);
      return abortJob(
        parts,
        environment(options?.signal),
        await journalBeside(parts.backend, path),
        options?.live,
      );
    },
    journalOf: async (file) => {
      const path = journalPath(await parts.backend.realPath(file));
      const records = await readJournal(parts.backend, path);
      return records === null ? null : summaryOf(path, records);
    },
  };
}

/** A job that is tried again after a failure neither asks again whether it may switch, nor how it ends. */
function askedOnce(options: RunOptions): RunOptions {
  const { beforeSwitch, active } = options;
  return {
    ...options,
    ...(beforeSwitch === undefined ? {} : { beforeSwitch: once(beforeSwitch) }),
    ...(active === undefined
      ? {}
      : { active: { ready: once(() => active.ready()), ended: once(() => active.ended()) } }),
  };
}

function once<T>(call: () => T): () => T {
  let called: { readonly value: T } | null = null;
  return () => {
    called ??= { value: call() };
    return called.value;
  };
}

function summaryOf(path: string, journal: Pick<Journal, 'intent' | 'records'>): JournalSummary {
  const { intent, records } = journal;
  const pivot = pivotIn(journal);
  const plan = inPlace({ path, intent });
  const pivoted = pivot === null ? null : pathOf(plan, pivot.to);
  const { copied } = positionOf(records);
  const [claim, owner] = [claimOf(plan), lastOwner(journal)];
  const aborting = records.some(({ type }) => type === 'ABORT');
  return { job: intent.job, plan, claim, owner, copied, pivoted, aborting };
}

function strategyOf(
  parts: EngineParts,
  wanted: { readonly name: string; readonly version?: number },
): CommitStrategy {
  const known = parts.strategies.map(({ name }) => name).join(', ');
  const strategy = parts.strategies.find(({ name }) => name === wanted.name);
  if (strategy !== undefined && (wanted.version ?? strategy.version) === strategy.version)
    return strategy;
  throw new CommitError(
    'COMMIT_UNKNOWN_STRATEGY',
    `strategy '${wanted.name}' (version ${wanted.version ?? 'any'}) is not here; known are ${known}`,
    { strategy: wanted.name },
  );
}
