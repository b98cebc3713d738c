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
import type { Kind } from './scenario.ts';
import { windowsOf } from './windows.ts';

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
  /** When a barrier is away: how many new states are judged, and how many of them gone on with, at most. */
  readonly judgedWithout: number;
  readonly recoveredWithout: number;
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
  judgedWithout: 300,
  recoveredWithout: 30,
};

/** Files of these kinds are so long, or so full, that a state costs a hundred times what others do: few of them are looked at. */
const COSTLY: readonly Kind[] = ['huge', 'long', 'dense'];
const LITTLE: Partial<Effort> = {
  recovered: 0.002,
  recoveredAtEnd: 0.01,
  most: 300,
  judgedWithout: 100,
  recoveredWithout: 10,
};

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
  /** Where in the log it begins: what stands before is a killed process's, and may still be pending. */
  readonly from: number;
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
    from: 0,
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
    this.#effort = COSTLY.includes(one.scenario.kind) ? { ...effort, ...LITTLE } : effort;
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
    const { judgedWithout, recoveredWithout } = this.#effort;
    const found: CrashState[] = [];
    const windows = windowsOf(run.recording.log, barrier, run.from);
    const each = Math.ceil(judgedWithout / Math.max(1, windows.length));
    const left = new Map(windows.map((window) => [window, each]));
    for (const state of this.#statesOf(run, { ignoreFlush: (name) => name === barrier })) {
      const window = windows.find(({ after, until }) => state.at > after && state.at <= until);
      const more = window === undefined ? 0 : (left.get(window) as number);
      if (window === undefined || more === 0) continue;
      left.set(window, more - 1);
      const problems = await this.#judge(state, run);
      if (problems.length > 0) return this.#violation([...run.path, state.name], problems);
      found.push(state);
    }
    const step = Math.max(1, Math.floor(found.length / recoveredWithout));
    for (const { disk, name } of found.filter((_, index) => index % step === 0)) {
      const how = { boot: this.#nextBoot(), givenUp: run.givenUp };
      const { ending, problems } = await recover(this.#one, record(disk), how);
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
    const { recording, from } = run;
    const { log } = recording;
    const options = { ...crash, exhaustive, samples, tear, seed, from };
    for (const state of crashStates(recording, options)) {
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
  async #goOn(state: CrashState, run: Run): Promise<void> {
    const { recovered, recoveredAtEnd, pointHits, crashedAgain, aborted } = this.#effort;
    const { disk, name, at } = state;
    const points = run.points[isKill(state) ? at + 1 : at] ?? [];
    const { points: hits } = this.#findings;
    const rare = points.some((point) => (hits.get(point) ?? 0) < pointHits);
    const records = this.#records(disk);
    const share = Math.max(recovered, isEnd(records) ? recoveredAtEnd : 0);
    const next: Next = {
      path: [...run.path, name],
      givenUp: run.givenUp,
      deeper: run.path.length === 0 && this.#random.chance(rare ? 0.5 : crashedAgain),
    };
    if (records.length > 0 && this.#random.chance(aborted)) await this.#giveUp(state, run, next);
    else if (rare || this.#random.chance(share)) await this.#recover(state, run, next);
    else return;
    for (const point of points) hits.set(point, (hits.get(point) ?? 0) + 1);
  }

  #records(disk: MemoryDisk): readonly JournalRecord[] {
    const records = this.#one.gallery.journal(disk, this.#one.journal);
    return typeof records === 'string' ? [] : (records ?? []);
  }

  async #recover(state: CrashState, run: Run, next: Next): Promise<void> {
    this.#findings.recoveries++;
    const recording = this.#recordingFrom(state, run, next);
    const { givenUp } = next;
    const recovery = await recover(this.#one, recording, { boot: this.#nextBoot(), givenUp });
    await this.#ended(recovery, state, next);
  }

  async #giveUp(state: CrashState, run: Run, next: Next): Promise<void> {
    this.#findings.aborts++;
    const recording = this.#recordingFrom(state, run, next);
    const how = { boot: this.#nextBoot(), givenUp: next.givenUp, again: this.#random.chance(0.3) };
    const recovery = await giveUp(this.#one, recording, how);
    await this.#ended(recovery, state, { ...next, givenUp: true });
  }

  /** After a kill what was pending still is: a power cut may take it from the successor. */
  #recordingFrom(state: CrashState, { recording }: Run, { deeper }: Next): Recording {
    if (!deeper || !isKill(state)) return record(state.disk);
    return record(recording.initial, recording.log.slice(0, state.at + 1));
  }

  /** Each recovery is of a boot of its own; it may take two. */
  #nextBoot(): number {
    this.#boots += 2;
    return this.#boots;
  }

  /** Notes what is wrong at a recovery's end; if nothing is, explores what a crash of it leaves. */
  async #ended(
    { ending, recording, problems }: Recovery,
    state: CrashState,
    { path, givenUp, deeper }: Next,
  ): Promise<void> {
    const here = [...path, ending];
    this.#note(here, problems);
    if (problems.length > 0 || !deeper || ending === 'over') return;
    const end: Run['end'] = givenUp ? null : (after) => brokenEnd(this.#one, after);
    const from = isKill(state) ? state.at + 1 : 0;
    const points = pointsOf(recording.log, []);
    await this.#explore({ path: here, recording, from, givenUp, points, end });
  }

  #note(path: readonly string[], problems: readonly string[]): void {
    if (problems.length > 0) this.#findings.violations.push(this.#violation(path, problems));
  }

  #violation(path: readonly string[], problems: readonly string[]): Violation {
    const { strategy, seed } = this.#one.scenario;
    return { strategy, seed, state: path.join(' > '), problems };
  }
}

/** A way on from a crash state. */
interface Next {
  /** Names up to the state. */
  readonly path: readonly string[];
  readonly givenUp: boolean;
  /** It is crashed everywhere again. */
  readonly deeper: boolean;
}

function isKill({ name }: CrashState): boolean {
  return name.startsWith('kill');
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
