import { byteLength } from '@downfold/units';
import { CommitError } from '../errors.ts';
import type { CommitPlan, CommitRequest } from '../plan.ts';
import type { Step } from '../step.ts';
import type { CommitStrategy } from '../strategy.ts';
import { brokenAtEnd } from './check-end.ts';
import { MovedCheck } from './check-moved.ts';
import { checkPlan } from './check-plan.ts';
import { StateCheck } from './check-state.ts';
import { type Survivors, stateKey } from './durability.ts';
import { Model } from './model.ts';
import { UNBEGUN } from './model-journal.ts';
import { viewForPlan, viewForSteps } from './model-view.ts';
import { Pool } from './pool.ts';
import type { Report } from './report.ts';
import type { RuleId } from './rules.ts';
import { lostText, type Run, type Start, storyOf } from './run.ts';
import { SECTOR_BYTES, type Setting, textOf } from './setting.ts';
import { Violation } from './violation.ts';

/** How thoroughly a setting is explored. */
export interface Depth {
  /** Up to so many writes that are not durable, every set of them is lost once; of more, the plain sets. */
  readonly losses: number;
  /** Up to so many, the job goes on from every set; of more, from the plain sets. */
  readonly resumes: number;
  /** Runs of one setting, at most: the first one and resumed ones, which are crashed too. */
  readonly runs: number;
}

/** Plans with `strategy`; the steps are those of the strategy that the plan names. */
export interface Strategies {
  readonly strategy: CommitStrategy;
  readonly named: (name: string) => CommitStrategy;
}

/**
 * Plans a setting, runs the plan, crashes it at every step in every way, goes on from what is left, crashes that too, and so on
 * until nothing new comes up; judges every state. Adds what it finds to `report`.
 */
export async function explore(
  { strategy, named }: Strategies,
  setting: Setting,
  depth: Depth,
  report: Report,
): Promise<void> {
  const pool = new Pool(setting);
  const before = report.violations;
  try {
    const plan = await planOf(strategy, pool);
    if (plan === null) {
      report.refused++;
      return;
    }
    report.settings++;
    checkPlan(pool, plan);
    await new Exploration(named(plan.strategy.name), pool, plan, depth, report).all();
  } catch (cause) {
    if (!(cause instanceof Violation)) throw cause;
    report.found(cause.rule, () => `${cause.message}\n  in ${textOf(setting)}`);
  }
  if (report.violations > before) report.failed++;
}

/** The plan of a strategy; null: it cannot do that. */
async function planOf(strategy: CommitStrategy, pool: Pool): Promise<CommitPlan | null> {
  try {
    const view = viewForPlan(pool, () => pool.initial, strategy.keepsSiblings);
    return await strategy.plan(requestOf(pool.setting), view);
  } catch (cause) {
    if (cause instanceof Violation) throw cause;
    if (cause instanceof CommitError && cause.code === 'COMMIT_UNSUPPORTED') return null;
    throw new Violation('plan/refuses-by-code', `plan rejects with ${cause}`);
  }
}

/** What a setting asks for. */
export function requestOf(setting: Setting): CommitRequest {
  const { operation, base, top, emptyTop, siblings, keepUndo, unsafe, checkpointSectors } = setting;
  const checkpointBytes = byteLength(checkpointSectors * SECTOR_BYTES);
  return { operation, base, top, emptyTop, siblings, keepUndo, unsafe, checkpointBytes };
}

class Exploration {
  readonly #strategy: CommitStrategy;
  readonly #pool: Pool;
  readonly #plan: CommitPlan;
  readonly #depth: Depth;
  readonly #report: Report;
  readonly #states: StateCheck;
  readonly #moved: MovedCheck;
  readonly #judged: Set<string> = new Set();
  /** By the key of the state that they begin from. */
  readonly #starts: Map<string, Start> = new Map();

  constructor(
    strategy: CommitStrategy,
    pool: Pool,
    plan: CommitPlan,
    depth: Depth,
    report: Report,
  ) {
    this.#strategy = strategy;
    this.#pool = pool;
    this.#plan = plan;
    this.#depth = depth;
    this.#report = report;
    this.#states = new StateCheck(pool, plan);
    this.#moved = new MovedCheck(pool, plan);
  }

  async all(): Promise<void> {
    const { initial: disks } = this.#pool;
    this.#starts.set('', { disks, journal: UNBEGUN, crash: null, crashes: 0, spent: 0 });
    // grows while it is gone through
    for (const start of this.#starts.values()) await this.#run(start);
    this.#report.resumes += this.#starts.size - 1;
  }

  async #run(start: Start): Promise<void> {
    const run: Run = { start, steps: [] };
    const model = this.#modelAt(start);
    try {
      if (start.journal.pivoted) model.finishPivoted();
      else await this.#steps(model, run);
      model.disk.writes(null);
      model.finish();
      this.#crash(model, run);
    } catch (cause) {
      const isViolation = cause instanceof Violation;
      this.#found(isViolation ? cause.rule : 'steps/never-throw', String(cause), run);
      return;
    } finally {
      this.#report.steps += run.steps.length;
    }
    this.#end(model, run);
    if (start.crash === null) await this.#again(run);
  }

  async #steps(model: Model, run: Run): Promise<void> {
    model.disk.writes(0);
    this.#crash(model, run);
    for await (const batch of this.#stepsOf(model, run.start))
      for (const step of batch) {
        run.steps.push(step);
        model.do(step);
        this.#crash(model, run);
        model.disk.writes(run.steps.length);
        this.#crash(model, run);
      }
  }

  #modelAt({ disks, journal }: Start): Model {
    return new Model(this.#pool, this.#plan, disks, journal);
  }

  #stepsOf(model: Model, { journal }: Start): AsyncIterable<readonly Step[]> {
    const view = viewForSteps(this.#pool, () => model.seen, this.#plan);
    return this.#strategy.steps(this.#plan, view, journal.cursor);
  }

  /** All that a crash can leave after the last step of a run. */
  #crash(model: Model, run: Run): void {
    const { losses, resumes, runs } = this.#depth;
    const { crashes, spent } = run.start;
    this.#spend(model, run);
    for (const left of model.crashes(losses)) {
      const { disks, journal, lost } = left;
      const key = stateKey(disks, journal);
      if (this.#judged.has(key)) continue;
      this.#judged.add(key);
      this.#report.crashStates++;
      if (this.#judge(left, run)) continue;
      if (this.#starts.size >= runs || (left.pending > resumes && !left.plain)) continue;
      this.#starts.set(key, {
        disks,
        journal,
        crash: { run, steps: run.steps.length, lost },
        crashes: crashes + 1,
        spent: spent + model.copied,
      });
    }
  }

  /** At the worst all is lost that may be lost: what was spent on it is spent again. */
  #spend(model: Model, { start }: Run): void {
    const known = this.#starts.get(model.leastKey());
    if (known !== undefined && known.crashes > start.crashes)
      known.spent = Math.max(known.spent, start.spent + model.copied);
  }

  /** Whether a state breaks a rule. */
  #judge({ disks, journal, lost }: Survivors, run: Run): boolean {
    let isBroken = false;
    for (const [rule, message] of this.#states.broken(disks, journal)) {
      isBroken = true;
      this.#found(rule, message, run, () => `\n  crash: ${lostText(this.#pool, lost)}`);
    }
    return isBroken;
  }

  #end(model: Model, run: Run): void {
    const isFirst = run.start.crash === null;
    for (const [rule, message] of brokenAtEnd(this.#pool, this.#plan, model, this.#states))
      this.#found(isFirst ? rule : 'resume/comes-to-the-same-end', message, run);
    const moved = isFirst
      ? this.#moved.broken(model, run)
      : this.#moved.brokenAgain(model, run.start);
    for (const [rule, message] of moved) this.#found(rule, message, run);
  }

  /** The same from the same: no clock, no randomness, no state. */
  async #again(run: Run): Promise<void> {
    const model = this.#modelAt(run.start);
    let at = 0;
    model.disk.writes(at);
    for await (const batch of this.#stepsOf(model, run.start))
      for (const step of batch) {
        const [before, now] = [JSON.stringify(run.steps[at++]), JSON.stringify(step)];
        if (before !== now) {
          this.#found('steps/deterministic', `step ${at} was ${before}, and is ${now}`, run);
          return;
        }
        model.do(step);
        model.disk.writes(at);
      }
  }

  #found(rule: RuleId, message: string, run: Run, after: () => string = () => ''): void {
    this.#report.found(
      rule,
      () => `${message}\n  in ${textOf(this.#pool.setting)}\n${storyOf(this.#pool, run)}${after()}`,
    );
  }
}
