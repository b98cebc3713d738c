import { alignDown, byteLength } from '@downfold/units';
import { CommitError } from '../errors.ts';
import type { CommitPlan, CommitRequest } from '../plan.ts';
import type { Step } from '../step.ts';
import type { CommitStrategy } from '../strategy.ts';
import { brokenAtEnd } from './check-end.ts';
import { checkPlan } from './check-plan.ts';
import { StateCheck } from './check-state.ts';
import type { Disks, Write } from './disks.ts';
import type { Survivors } from './durability.ts';
import { Model } from './model.ts';
import { journalKey, type ModelJournal, UNBEGUN } from './model-journal.ts';
import { viewForPlan, viewForSteps } from './model-view.ts';
import { Pool } from './pool.ts';
import type { Report } from './report.ts';
import type { RuleId } from './rules.ts';
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

/** Plans with `strategy`; gives the steps of the plan's own. */
export interface Strategies {
  readonly strategy: CommitStrategy;
  readonly stepsOf: (plan: CommitPlan) => CommitStrategy;
}

/** Where a run begins, and how it came there. */
interface Start {
  readonly disks: Disks;
  readonly journal: ModelJournal;
  readonly from: {
    readonly run: Run;
    readonly steps: number;
    readonly lost: readonly Write[];
  } | null;
  /** How many crashes lie before it. */
  readonly crashes: number;
  /** Bytes that were copied before it, durable or not, at most. */
  spent: number;
}

interface Run {
  readonly start: Start;
  readonly steps: Step[];
}

/**
 * Plans a setting, runs the plan, crashes it at every step in every way, goes on from what is left, crashes that too, and so on
 * until nothing new comes up; judges every state. Adds what it finds to `report`.
 */
export async function explore(
  strategies: Strategies,
  setting: Setting,
  depth: Depth,
  report: Report,
): Promise<void> {
  const pool = new Pool(setting);
  const found = (rule: RuleId, message: string, story: string): void =>
    report.found(rule, `${message}\n  in ${textOf(setting)}\n${story}`);
  const before = report.findings.size;
  const counted = (): number =>
    [...report.findings.values()].reduce((sum, { count }) => sum + count, 0);
  const broken = counted();
  try {
    const plan = await planOf(strategies.strategy, pool);
    if (plan === null) {
      report.refused++;
      return;
    }
    report.settings++;
    checkPlan(pool, plan);
    await new Exploration(strategies.stepsOf(plan), pool, plan, depth, report, found).all();
  } catch (cause) {
    if (!(cause instanceof Violation)) throw cause;
    found(cause.rule, cause.message, '');
  }
  if (counted() > broken || report.findings.size > before) report.failed++;
}

async function planOf(strategy: CommitStrategy, pool: Pool): Promise<CommitPlan | null> {
  const view = viewForPlan(pool, () => pool.initial, strategy.keepsSiblings);
  try {
    return await strategy.plan(requestOf(pool.setting), view);
  } catch (cause) {
    if (cause instanceof Violation) throw cause;
    if (cause instanceof CommitError && cause.code === 'COMMIT_UNSUPPORTED') return null;
    throw new Violation('plan/refuses-by-code', `plan rejects with ${cause}`);
  }
}

function requestOf(setting: Setting): CommitRequest {
  const { operation, base, top, emptyTop, siblings, keepUndo, unsafe, checkpointSectors } = setting;
  return {
    operation,
    base,
    top,
    emptyTop,
    siblings,
    keepUndo,
    unsafe,
    checkpointBytes: byteLength(checkpointSectors * SECTOR_BYTES),
  };
}

class Exploration {
  readonly #strategy: CommitStrategy;
  readonly #pool: Pool;
  readonly #plan: CommitPlan;
  readonly #depth: Depth;
  readonly #report: Report;
  readonly #found: (rule: RuleId, message: string, story: string) => void;
  readonly #check: StateCheck;
  /** States that were judged, and those that runs begin from. */
  readonly #judged: Set<string> = new Set();
  readonly #starts: Map<string, Start> = new Map();
  /** What the first run copied into. */
  #targets = 1;

  constructor(
    strategy: CommitStrategy,
    pool: Pool,
    plan: CommitPlan,
    depth: Depth,
    report: Report,
    found: (rule: RuleId, message: string, story: string) => void,
  ) {
    this.#strategy = strategy;
    this.#pool = pool;
    this.#plan = plan;
    this.#depth = depth;
    this.#report = report;
    this.#found = found;
    this.#check = new StateCheck(pool, plan);
  }

  async all(): Promise<void> {
    const { initial } = this.#pool;
    const first = { disks: initial, journal: UNBEGUN, from: null, crashes: 0, spent: 0 };
    this.#starts.set('first', first);
    // grows while it is gone through
    for (const start of this.#starts.values()) await this.#run(start);
    this.#report.resumes += this.#starts.size - 1;
  }

  async #run(start: Start): Promise<void> {
    const run: Run = { start, steps: [] };
    const model = new Model(this.#pool, this.#plan, start.disks, start.journal);
    try {
      for await (const batch of this.#stepsOf(model, start))
        for (const step of batch) {
          run.steps.push(step);
          model.do(step);
          this.#crash(model, run);
        }
      model.finish();
      this.#crash(model, run);
    } catch (cause) {
      if (cause instanceof Violation)
        this.#found(cause.rule, cause.message, storyOf(this.#pool, run));
      else this.#found('steps/never-throw', String(cause), storyOf(this.#pool, run));
      return;
    } finally {
      this.#report.steps += run.steps.length;
    }
    this.#end(model, run);
    if (start.from === null) await this.#again(run);
  }

  #stepsOf(model: Model, { journal }: Start): AsyncIterable<readonly Step[]> {
    const view = viewForSteps(this.#pool, () => model.seen, this.#plan);
    return this.#strategy.steps(this.#plan, view, journal.cursor);
  }

  /** All that a crash can leave after the last step of a run. */
  #crash(model: Model, run: Run): void {
    const { losses, resumes, runs } = this.#depth;
    const spent = run.start.spent + model.copied;
    this.#lose(model, run, spent);
    for (const left of model.crashes(losses)) {
      const key = keyOf(left.disks, left.journal);
      if (this.#judged.has(key)) continue;
      this.#judged.add(key);
      this.#report.crashStates++;
      if (this.#judge(left, run)) continue;
      if (this.#starts.size >= runs || (left.pending > resumes && !left.plain)) continue;
      const { disks, journal, lost } = left;
      const from = { run, steps: run.steps.length, lost };
      this.#starts.set(key, { disks, journal, from, crashes: run.start.crashes + 1, spent });
    }
  }

  /** At the worst all is lost that may be, and what was spent on it is spent again. */
  #lose(model: Model, run: Run, spent: number): void {
    const { disks, journal } = model.least();
    const start = this.#starts.get(keyOf(disks, journal));
    if (start !== undefined && start.crashes > run.start.crashes)
      start.spent = Math.max(start.spent, spent);
  }

  /** Whether a state breaks a rule. */
  #judge({ disks, journal, lost }: Survivors, run: Run): boolean {
    let isBroken = false;
    for (const [rule, message] of this.#check.broken(disks, journal)) {
      isBroken = true;
      this.#found(
        rule,
        message,
        `${storyOf(this.#pool, run)}\n  crash: ${lostText(this.#pool, lost)}`,
      );
    }
    return isBroken;
  }

  #end(model: Model, run: Run): void {
    const story = storyOf(this.#pool, run);
    const isFirst = run.start.from === null;
    for (const [rule, message] of brokenAtEnd(this.#pool, this.#plan, model, this.#check))
      this.#found(isFirst ? rule : 'resume/comes-to-the-same-end', message, story);
    if (isFirst) this.#moved(model, run, story);
    else this.#movedAgain(model, run.start, story);
  }

  /** What the first run moved is what the plan said. */
  #moved(model: Model, run: Run, story: string): void {
    const { bytesToCopy, bytesToZero, request } = this.#plan;
    const [copies, zeros] = [model.copied - bytesToCopy, model.zeroed - bytesToZero];
    const slack = this.#slack();
    const tooFew = copies < -slack && request.operation !== 'rebase';
    if (copies > slack || tooFew || Math.abs(zeros) > slack)
      this.#found(
        'plan/counts-what-is-moved',
        `planned ${bytesToCopy} bytes to copy, ${bytesToZero} to zero; copied ${model.copied}, zeroed ${model.zeroed}`,
        story,
      );
    const targets = run.steps.flatMap((step) => (step.do === 'copy' ? [step.to] : []));
    this.#targets = new Set(targets).size;
    this.#costs(model, story);
  }

  /**
   * By how many bytes counts may be off: a write completes units of its image, which are seen as allocated by what comes after it;
   * and the area that a base without units, or with a cut one, gets when it grows is data.
   */
  #slack(): number {
    const { growBaseTo, request, images } = this.#plan;
    const units = images.map(({ geometry }) => geometry.allocationGranularity);
    const base = images.find(({ node }) => node === request.base)?.geometry;
    const mixed = new Set(units).size > 1 ? Math.max(...units) : 0;
    if (growBaseTo === null || base === undefined) return mixed * images.length;
    const start = alignDown(base.virtualSize, base.allocationGranularity);
    const isData = base.clusterSize === 1 || start < base.virtualSize;
    return (mixed + (isData ? growBaseTo - start : 0)) * images.length;
  }

  /** A resumed run copies what no durable cursor covers, and a crash costs no more than a checkpoint. */
  #movedAgain(model: Model, { journal, crashes, spent }: Start, story: string): void {
    const { bytesToCopy, request } = this.#plan;
    if (journal.copied + model.copied > bytesToCopy + this.#slack())
      this.#found(
        'resume/copies-only-what-is-left',
        `${model.copied} bytes copied, and ${journal.copied} were done of ${bytesToCopy}`,
        story,
      );
    // not less than one unit of each image that is copied into
    const unit = Math.max(...this.#pool.setting.images.map((image) => image.unit)) * SECTOR_BYTES;
    const loss = Math.max(request.checkpointBytes, unit * this.#targets);
    if (spent + model.copied > bytesToCopy + this.#slack() + crashes * loss)
      this.#found(
        'resume/loses-no-more-than-a-checkpoint',
        `${spent} bytes copied before ${crashes} crashes and ${model.copied} after, of ${bytesToCopy}; ${loss} may be lost each time`,
        story,
      );
  }

  #costs({ images }: Model, story: string): void {
    for (const [image, written] of images.written.entries()) {
      const node = this.#pool.nodeOf(image);
      const cost = this.#plan.costs.find((one) => one.node === node);
      const freed = images.freed[image] as number;
      if (written > (cost?.written ?? 0) || freed > (cost?.freed ?? 0))
        this.#found(
          'plan/costs-are-upper-bounds',
          `${node}: ${written} bytes written, ${freed} freed; planned ${JSON.stringify(cost)}`,
          story,
        );
    }
  }

  /** The same from the same: no clock, no randomness, no state. */
  async #again(run: Run): Promise<void> {
    const model = new Model(this.#pool, this.#plan, run.start.disks, run.start.journal);
    let at = 0;
    for await (const batch of this.#stepsOf(model, run.start))
      for (const step of batch) {
        const before = run.steps[at++];
        if (JSON.stringify(before) !== JSON.stringify(step)) {
          const story = storyOf(this.#pool, run);
          const message = `step ${at} was ${JSON.stringify(before)}, now ${JSON.stringify(step)}`;
          this.#found('steps/deterministic', message, story);
          return;
        }
        model.do(step);
      }
  }
}

function keyOf(disks: Disks, journal: ModelJournal): string {
  return `${disks.key()}${journalKey(journal)}`;
}

/** How a run came about and what it did, for people. */
function storyOf(pool: Pool, { start, steps }: Run): string {
  const text = steps.map((step) => `  ${stepText(step)}`).join('\n');
  if (start.from === null) return text;
  const { run, steps: count, lost } = start.from;
  const before = storyOf(pool, { start: run.start, steps: run.steps.slice(0, count) });
  const cursor = JSON.stringify(start.journal.cursor);
  return `${before}\n  crash: ${lostText(pool, lost)}; resumed from ${cursor}\n${text}`;
}

function lostText(pool: Pool, lost: readonly Write[]): string {
  if (lost.length === 0) return 'nothing written is lost';
  const texts = lost.map(
    ({ image, start, cells }) => `${pool.nodeOf(image)} [${start}, ${start + cells.length})`,
  );
  return `lost: ${texts.join(', ')}`;
}

function stepText(step: Step): string {
  const range =
    'range' in step
      ? ` [${step.range.offset / SECTOR_BYTES}, ${(step.range.offset + step.range.length) / SECTOR_BYTES})`
      : '';
  const { do: name, ...rest } = step;
  const { range: _, host: __, reference: ___, ...others } = rest as Record<string, unknown>;
  return `${name}${range} ${JSON.stringify(others)}`;
}
