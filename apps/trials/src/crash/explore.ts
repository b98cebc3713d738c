import type { CommitStrategy, JournalRecord } from '@downfold/commit';
import { openBackend, type StorageBackend } from '@downfold/storage';
import {
  type CrashOptions,
  type CrashState,
  crashStates,
  type MemoryDisk,
  type Recording,
  record,
} from '@downfold/storage-memory';
import { type Draw, draw } from '../tools/draw.ts';
import { type Case, engineOn, STRATEGY } from './case.ts';
import { jittered } from './jitter.ts';
import { marking, type Point, pointsOf, type StepMarks } from './points.ts';
import { brokenEnd, brokenPromises } from './promises.ts';
import { giveUp, type Recovery, recover } from './recover.ts';

/** How much of a case is tried. Shares are probabilities. */
export interface Effort {
  readonly exhaustive: number;
  readonly samples: number;
  /** States from which the job is gone on with, beside those at points that were hit less than `pointHits` times, and some at the end. */
  readonly recovered: number;
  readonly recoveredAtEnd: number;
  readonly pointHits: number;
  /** Of these: the recovery is recorded, and crashed everywhere again. */
  readonly crashedAgain: number;
  /** States with a journal from which the job is given up. */
  readonly aborted: number;
  /** States of one case at most. */
  readonly most: number;
}

export const EFFORT: Effort = {
  exhaustive: 8,
  samples: 32,
  recovered: 0.01,
  recoveredAtEnd: 0.2,
  pointHits: 2,
  crashedAgain: 0.15,
  aborted: 0.005,
  most: 20_000,
};

/** What is tried of a case whose states cost much. */
const COSTLY: Partial<Effort> = { recovered: 0.002, recoveredAtEnd: 0.01, most: 300 };

/** How many states are judged, and how many of them gone on with, when a barrier is away. */
const HUNT = { states: 300, recoveries: 30 };

/** A promise that did not hold. */
export interface Violation {
  readonly strategy: string;
  readonly seed: number;
  /** Names of crash states, one in the recovery from the other. */
  readonly state: string;
  readonly problems: readonly string[];
}

/** What was found so far, of one case or of many. */
export interface Findings {
  states: number;
  recoveries: number;
  aborts: number;
  readonly violations: Violation[];
  /** How often the job was gone on with, or given up, from a state at each point. */
  readonly points: Map<Point, number>;
}

/** Nothing found yet. */
export function noFindings(): Findings {
  return { states: 0, recoveries: 0, aborts: 0, violations: [], points: new Map() };
}

/** Something that was done to a disk while it was recorded: the job, a recovery, an abort. */
export interface Run {
  /** Crash states that it began with, and how it was gone on with: names, in order. */
  readonly path: readonly string[];
  readonly recording: Recording;
  readonly points: readonly (readonly Point[])[];
  /** The job was given up before, or in it. */
  readonly givenUp: boolean;
  /** What must be true once it is over; null: nothing more than on the way. */
  readonly end: ((disk: MemoryDisk) => Promise<readonly string[]>) | null;
}

/** Records a case's job, run to the end. @throws what the engine throws */
export async function recordJob(
  one: Case,
  strategy: CommitStrategy = STRATEGY[one.scenario.strategy],
): Promise<Run> {
  const recording = record(one.disk);
  const marks: StepMarks = [];
  const marked = marking(strategy, recording.log, marks);
  await engineOn(backendOf(one, recording), 1, [marked]).run(one.plan, one.options);
  return {
    path: [],
    recording,
    givenUp: false,
    points: pointsOf(recording.log, marks),
    end: (disk) => brokenEnd(one, disk),
  };
}

function backendOf({ scenario }: Case, recording: Recording): StorageBackend {
  if (!scenario.jitter) return recording.backend;
  return openBackend(jittered(recording.driver, draw(scenario.seed)));
}

/** Explores crash states of a case, each once. */
export class Explorer {
  readonly #one: Case;
  readonly #effort: Effort;
  readonly #findings: Findings;
  readonly #random: Draw;
  readonly #seen: Set<string> = new Set();
  readonly #runs: Run[] = [];
  #boots = 1;

  /** @param findings are added to */
  constructor(one: Case, effort: Effort, findings: Findings) {
    this.#one = one;
    this.#effort = one.scenario.costly ? { ...effort, ...COSTLY } : effort;
    this.#findings = findings;
    this.#random = draw(one.scenario.seed);
  }

  /** What was explored: the job, and every recovery and abort that was crashed again. */
  get runs(): readonly Run[] {
    return this.#runs;
  }

  /** Explores the job, and some of the ways on from its crash states. */
  async exploreJob(run: Run): Promise<void> {
    this.#note(['the end'], await brokenEnd(this.#one, run.recording.disk));
    await this.#explore(run);
  }

  /**
   * Explores what `run` could have left if flushes of a name had done nothing: states that were not seen when they did. Resolves with the
   * first violation, if there is one; it is no finding.
   */
  async without(barrier: string, run: Run): Promise<Violation | null> {
    const found: CrashState[] = [];
    for (const state of this.#statesOf(run, { ignoreFlush: (name) => name === barrier })) {
      const problems = await this.#judge(state, run);
      if (problems.length > 0) return this.#violation([...run.path, state.name], problems);
      if (found.push(state) === HUNT.states) break;
    }
    const step = Math.max(1, Math.floor(found.length / HUNT.recoveries));
    for (const { disk, name } of found.filter((_, index) => index % step === 0)) {
      const { ending, problems } = await this.#recover(disk, run.givenUp);
      if (problems.length > 0) return this.#violation([...run.path, name, ending], problems);
    }
    return null;
  }

  async #explore(run: Run): Promise<void> {
    this.#runs.push(run);
    for (const state of this.#statesOf(run, {})) {
      if (this.#findings.states >= this.#effort.most) return;
      this.#findings.states++;
      const problems = await this.#judge(state, run);
      if (problems.length > 0) this.#note([...run.path, state.name], problems);
      else await this.#goOn(state, run);
    }
  }

  /** Crash states that were not seen before. */
  *#statesOf(run: Run, crash: CrashOptions): Generator<CrashState, void, undefined> {
    const { exhaustive, samples } = this.#effort;
    const { tear, seed } = this.#one.scenario;
    const { log } = run.recording;
    for (const state of crashStates(run.recording, { ...crash, exhaustive, samples, tear, seed })) {
      // the same bytes may be right before a promise was made and wrong after it
      const over = state.at >= log.length ? '!' : '';
      const key = over + this.#one.gallery.keyOf(state.disk);
      if (this.#seen.has(key)) continue;
      this.#seen.add(key);
      yield state;
    }
  }

  /** What is wrong with a state. */
  async #judge({ disk, at }: CrashState, run: Run): Promise<readonly string[]> {
    if (at >= run.recording.log.length && run.end !== null) return run.end(disk);
    return brokenPromises(this.#one, disk);
  }

  /** Goes on with the job, or gives it up, from some of the states. */
  async #goOn({ disk, name, at }: CrashState, run: Run): Promise<void> {
    const { recovered, recoveredAtEnd, pointHits, crashedAgain, aborted } = this.#effort;
    const points = run.points[name.startsWith('kill') ? at + 1 : at] ?? [];
    const { points: hits } = this.#findings;
    const rare = points.some((point) => (hits.get(point) ?? 0) < pointHits);
    const records = this.#records(disk);
    const share = Math.max(recovered, isEnd(records) ? recoveredAtEnd : 0);
    const deeper = run.path.length === 0 && this.#random.chance(crashedAgain);
    const here = [...run.path, name];
    if (records.length > 0 && this.#random.chance(aborted)) {
      this.#findings.aborts++;
      await this.#ended(await this.#giveUp(disk, run.givenUp), here, true, deeper);
    } else if (rare || this.#random.chance(share)) {
      this.#findings.recoveries++;
      await this.#ended(await this.#recover(disk, run.givenUp), here, run.givenUp, deeper);
    } else return;
    for (const point of points) hits.set(point, (hits.get(point) ?? 0) + 1);
  }

  #records(disk: MemoryDisk): readonly JournalRecord[] {
    const records = this.#one.gallery.journal(disk, this.#one.journal);
    return typeof records === 'string' ? [] : (records ?? []);
  }

  #recover(disk: MemoryDisk, givenUp: boolean): Promise<Recovery> {
    return recover(this.#one, record(disk), { boot: this.#nextBoot(), givenUp });
  }

  #giveUp(disk: MemoryDisk, givenUp: boolean): Promise<Recovery> {
    const again = this.#random.chance(0.3);
    return giveUp(this.#one, record(disk), { boot: this.#nextBoot(), givenUp, again });
  }

  /** Each recovery is of a boot of its own; it may take two. */
  #nextBoot(): number {
    this.#boots += 2;
    return this.#boots;
  }

  /** Notes what is wrong at a recovery's end; if nothing is, explores what a crash of it leaves. */
  async #ended(
    { ending, recording, problems }: Recovery,
    here: readonly string[],
    givenUp: boolean,
    deeper: boolean,
  ): Promise<void> {
    const path = [...here, ending];
    this.#note(path, problems);
    if (problems.length > 0 || !deeper) return;
    const end: Run['end'] = givenUp ? null : (after) => brokenEnd(this.#one, after);
    await this.#explore({ path, recording, givenUp, points: pointsOf(recording.log, []), end });
  }

  #note(path: readonly string[], problems: readonly string[]): void {
    if (problems.length > 0) this.#findings.violations.push(this.#violation(path, problems));
  }

  #violation(path: readonly string[], problems: readonly string[]): Violation {
    const { strategy, seed } = this.#one.scenario;
    return { strategy, seed, state: path.join(' > '), problems };
  }
}

/** All data is in place, or about to be published: what is left is links, marks and names. */
function isEnd(records: readonly JournalRecord[]): boolean {
  return records.some(
    (record) =>
      record.type === 'PUBLISH' ||
      record.type === 'DONE' ||
      (record.type === 'PROGRESS' && record.cursor['complete'] === true),
  );
}
