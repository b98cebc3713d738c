import {
  type CrashOptions,
  crashStates,
  type MemoryDisk,
  type Recording,
} from '@downfold/storage-memory';
import { activeView, readsBeforeByQemu } from './judge.ts';

/** Crash states of one operation, and how many of them change what the guest reads. */
export interface Count {
  readonly operation: string;
  /** System calls, or calls of the backend, that change a file or make it durable. */
  readonly calls: number;
  /** Different states that a power cut or `kill -9` may leave. */
  readonly states: number;
  readonly bad: number;
  /** Moments of a `kill -9`, one after each change: no power cut needed. */
  readonly kills: number;
  readonly badKills: number;
  /** A `kill -9` after success was reported, before QEMU or we do anything else, changes what the guest reads. */
  readonly lostAfterSuccess: boolean;
  /** States that Downfold's reader refuses or reads otherwise, and QEMU's reads right: not counted as bad. */
  readonly disputed: number;
}

/** Who judges: of a state, its number among the different ones, and whether Downfold's reader finds it bad. */
export type SecondLook = (number: number, bad: boolean) => boolean;

/** QEMU confirms whatever is held against it. */
export const CONFIRM_BAD: SecondLook = (_, bad) => bad;
/** QEMU looks at every eighth state that Downfold's reader finds good, too. */
export const CONFIRM_SOME: SecondLook = (number, bad) => bad || number % 8 === 0;

/** Up to so many changes that a power cut may lose, every subset is tried; QEMU's jobs here have no more. Above, a sample. */
const EXHAUSTIVE = 8;

/** Replays every legal crash state. `directory` is for files that QEMU looks at. */
export async function countStates(
  operation: string,
  recording: Recording,
  directory: string,
  second: SecondLook,
  options: CrashOptions = {},
): Promise<Count> {
  const before = await activeView(recording.initial);
  if (before === null) throw new Error('active cannot be read before anything happened');
  const verdicts = new Map<string, boolean>();
  let [kills, badKills, disputed] = [0, 0, 0];
  const judge = async (disk: MemoryDisk): Promise<boolean> => {
    const bad = (await activeView(disk))?.equals(before) !== true;
    if (!second(verdicts.size, bad)) return bad;
    const byQemu = !(await readsBeforeByQemu(disk, before, directory));
    if (bad && !byQemu) disputed += 1;
    return byQemu;
  };
  let lostAfterSuccess = false;
  for (const { disk, name } of crashStates(recording, { exhaustive: EXHAUSTIVE, ...options })) {
    const key = disk.digest();
    let bad = verdicts.get(key);
    if (bad === undefined) {
      bad = await judge(disk);
      verdicts.set(key, bad);
    }
    if (!name.startsWith('kill@')) continue;
    kills += 1;
    if (bad) badKills += 1;
    // the last one stands
    lostAfterSuccess = bad;
  }
  const found = [...verdicts.values()];
  return {
    operation,
    calls: recording.log.length,
    states: found.length,
    bad: found.filter((bad) => bad).length,
    kills,
    badKills,
    lostAfterSuccess,
    disputed,
  };
}
