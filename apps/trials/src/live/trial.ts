import { ChainError, defaultPolicy, readMark } from '@downfold/chain';
import type { CommitStrategy, LiveDisk, RunOptions, SectionReport } from '@downfold/commit';
import { type CaseContext, caseContext } from '@downfold/compliance';
import type { Device } from '@downfold/device';
import { qcow2 } from '@downfold/qcow2';
import type { StorageBackend } from '@downfold/storage';
import {
  type CrashState,
  crashStates,
  MemoryDisk,
  memoryBackend,
  type Recording,
  record,
} from '@downfold/storage-memory';
import { active, copyDown, depthFirst, preserve, staged, stream } from '@downfold/strategies';
import { byteLength, guestOffset } from '@downfold/units';
import { engineOn } from '../crash/case.ts';
import { Guest } from '../device/guest.ts';
import { wrongIn } from '../device/wrong-in.ts';
import { makeChain, NAMES, pathIn, SIZE, snapshot, useDisk } from './world.ts';

export const STRATEGIES: readonly CommitStrategy[] = [
  copyDown,
  depthFirst,
  preserve,
  staged,
  stream,
  active,
];

/** What is tried. */
export interface LiveTrial {
  readonly seed: number;
  readonly strategy: string;
  /** Requests of the guest at least; it goes on until the job is over. */
  readonly requests: number;
  /** Puts an overlay on top while the job runs. */
  readonly snapshot?: boolean;
  /** `active`: how it ends. */
  readonly ending?: 'complete' | 'cancel';
  /** Part of the crash states that is looked at. */
  readonly share: number;
  /** Changes what the job works on, to show that this is noticed. */
  readonly sabotage?: (disk: LiveDisk) => LiveDisk;
  readonly strategies?: readonly CommitStrategy[];
  readonly ignoreFlush?: (barrier: string) => boolean;
}

/** What a trial saw. */
export interface LiveOutcome {
  readonly states: number;
  readonly problems: readonly string[];
  /** Longest time that requests were held, ms. */
  readonly heldMs: number;
}

/**
 * A guest with many requests in flight on `base <-- low <-- top <-- active` while a job commits, streams or pivots beneath it; then every legal crash
 * state, or a share of them: the disk is found by what is in the files, shows what was flushed, nothing foreign, and the job can be gone on with.
 */
export async function tryLive(trial: LiveTrial): Promise<LiveOutcome> {
  const draw = caseContext(trial.seed);
  const setup = new MemoryDisk();
  await makeChain(memoryBackend(setup), '/', draw);
  const recording = record(setup);
  const problems: string[] = [];
  const changes: number[] = [];
  const { guest, heldMs } = await runLive(recording.backend, '/', trial, draw, {
    now: () => recording.log.length,
    problems,
    changed: () => changes.push(recording.log.length),
    ended: (what) => {
      const isLate = what === 'pivot' && trial.ending !== 'cancel' && pivotIn(recording) < 0;
      if (isLate) problems.push('requests go on after the pivot, and PIVOT is not durable');
    },
  });
  const early = changedBeforePivot(recording, changes);
  if (early !== null) problems.push(early);
  const states = await judgeCrashes(recording, guest, trial, problems);
  const replay = `live, seed ${trial.seed}, ${trial.strategy}`;
  return { states, heldMs, problems: problems.map((problem) => `${replay}: ${problem}`) };
}

/** Where a trial notes what it sees. */
interface Notes {
  now(): number;
  readonly problems: string[];
  /** A change is about to be acknowledged. */
  changed(): void;
  /** A section is over. */
  ended(what: SectionReport['what']): void;
}

/** When PIVOT was durable: a number of the log; -1: never. */
function pivotIn({ log }: Recording): number {
  return log.findIndex((one) => one.kind === 'flush' && one.barrier === 'journal: PIVOT');
}

/**
 * Between base's last flush and a durable PIVOT nothing may be acknowledged: base would be the disk without it. Null: nothing was. Crash states would
 * show it only where a guest flushed in that moment.
 */
function changedBeforePivot(recording: Recording, changes: readonly number[]): string | null {
  const { log, disk } = recording;
  const inode = disk.inodeOf(pathIn('/', 'base'));
  const pivot = pivotIn(recording);
  if (pivot < 0) return null;
  const flushed = log
    .slice(0, pivot)
    .findLast((one) => one.kind === 'flush' && one.inode === inode);
  const from = flushed?.kind === 'flush' ? flushed.covers : 0;
  const early = changes.find((at) => at > from && at <= pivot);
  return early === undefined ? null : `change acknowledged at ${early}, PIVOT durable at ${pivot}`;
}

/** Runs the job of a trial beneath a guest, and judges the disk while it is in use. */
export async function runLive(
  backend: StorageBackend,
  directory: string,
  trial: LiveTrial,
  draw: CaseContext,
  { now, problems, changed, ended }: Notes,
): Promise<{ readonly guest: Guest; readonly heldMs: number; readonly old: Uint8Array }> {
  const paths = NAMES.map((name) => pathIn(directory, name));
  await using world = await useDisk(backend, paths);
  const { device } = world;
  const old = new Uint8Array(SIZE);
  await device.read(guestOffset(0), old);
  const guest = new Guest({ device, old, draw, now });
  device.observe({ mode: 'note', noted: changed });
  let isOver = false;
  let heldMs = 0;
  const job = async (): Promise<void> => {
    try {
      await commitBeneath(backend, directory, trial, device, ({ what, workMs }) => {
        heldMs = Math.max(heldMs, workMs);
        ended(what);
      });
    } catch (cause) {
      problems.push(`the job failed: ${(cause as Error).stack}`);
    } finally {
      isOver = true;
    }
  };
  await Promise.all([guest.run(trial.requests, () => !isOver), job()]);
  const found = new Uint8Array(SIZE);
  await device.read(guestOffset(0), found);
  const wrong = guest.wrongNow(found);
  problems.push(...guest.mistakes.slice(0, 5), ...(wrong === null ? [] : [`in use: ${wrong}`]));
  return { guest, heldMs, old };
}

async function commitBeneath(
  backend: StorageBackend,
  directory: string,
  trial: LiveTrial,
  device: Device,
  onSection: (report: SectionReport) => void,
): Promise<void> {
  const engine = engineOn(backend, 1, trial.strategies ?? STRATEGIES);
  const live = trial.sabotage?.(device) ?? device;
  const { strategy } = trial;
  const [base, top] = [pathIn(directory, 'base'), pathIn(directory, 'top')];
  const plan = await engine.plan(
    {
      file: pathIn(directory, 'active'),
      format: 'qcow2',
      strategy,
      base,
      ...(strategy === 'active' || strategy === 'stream' ? {} : { top }),
      checkpointBytes: byteLength(32 * 1024),
    },
    { live: device, estimate: false },
  );
  const options: RunOptions = {
    live,
    onSection,
    beforeSwitch: async () => {
      if (trial.snapshot === true) await snapshot(backend, device, pathIn(directory, 'snapshot'));
    },
    active: { ready: () => undefined, ended: async () => trial.ending ?? 'complete' },
  };
  await engine.run(plan, options);
}

async function judgeCrashes(
  recording: Recording,
  guest: Guest,
  trial: LiveTrial,
  problems: string[],
): Promise<number> {
  const draw = caseContext(trial.seed + 1_000_003);
  const told = new Set<string>();
  let states = 0;
  const options = {
    tear: true,
    exhaustive: 2,
    samples: 2,
    seed: trial.seed,
    ...(trial.ignoreFlush === undefined ? {} : { ignoreFlush: trial.ignoreFlush }),
  };
  for (const state of crashStates(recording, options)) {
    if (draw.random() > trial.share) continue;
    const key = `${state.disk.digest()} ${state.at}`;
    if (told.has(key)) continue;
    told.add(key);
    states++;
    for (const wrong of await wrongOn(state, guest, draw)) problems.push(`${state.name}: ${wrong}`);
    if (problems.length > 20) break;
  }
  return states;
}

/** What is wrong in a crash state, and after the job was gone on with or given up. */
async function wrongOn(
  { disk, at }: CrashState,
  guest: Guest,
  draw: CaseContext,
): Promise<readonly string[]> {
  const backend = memoryBackend(disk);
  const before = await wrongAt(backend, at, guest);
  if (before !== null) return [before];
  const engine = engineOn(backend, 2, STRATEGIES);
  const leaf = pathIn('/', 'active');
  const journal = await engine.journalOf(leaf);
  if (journal === null) return [];
  const canGoOn = journal.pivoted !== null || journal.plan.strategy.name !== 'active';
  try {
    if (canGoOn && draw.random() < 0.7) await engine.resume(leaf);
    else await engine.abort(leaf);
  } catch (cause) {
    const { code } = cause as { readonly code?: string };
    if (code !== 'COMMIT_PAST_ABORT') return [`cannot be gone on with: ${(cause as Error).stack}`];
  }
  const after = await wrongAt(backend, at, guest);
  return after === null ? [] : [`after going on: ${after}`];
}

async function wrongAt(backend: StorageBackend, at: number, guest: Guest): Promise<string | null> {
  const environment = { backend, formats: [qcow2], policy: defaultPolicy };
  try {
    return await wrongIn(environment, { path: await diskIn(backend), size: SIZE }, at, guest);
  } catch (cause) {
    if (cause instanceof ChainError) return cause.message;
    throw cause;
  }
}

/** The image that is the disk, by what is in the files alone. */
export async function diskIn(backend: StorageBackend, directory = '/'): Promise<string> {
  const leaf = pathIn(directory, 'active');
  const journal = await engineOn(backend, 3, STRATEGIES).journalOf(leaf);
  if (journal !== null && journal.pivoted !== null) return journal.pivoted;
  const above = pathIn(directory, 'snapshot');
  if (await isWhole(backend, above)) return above;
  await using image = await qcow2.open(await backend.open(leaf, 'read'), { mode: 'read' });
  const mark = await readMark(image, backend);
  return mark?.state === 'superseded' ? pathIn(directory, 'base') : leaf;
}

/** A snapshot that is only being made is not the disk yet. */
async function isWhole(backend: StorageBackend, path: string): Promise<boolean> {
  const storage = await backend.open(path, 'read').catch(() => null);
  if (storage === null) return false;
  try {
    await using _image = await qcow2.open(storage, { mode: 'read' });
    return true;
  } catch {
    await storage[Symbol.asyncDispose]();
    return false;
  }
}
