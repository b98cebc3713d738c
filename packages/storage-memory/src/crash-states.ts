import { applyChange } from './changes.ts';
import { afterEntry, type Durability } from './durability.ts';
import type { MemoryDisk } from './memory-disk.ts';
import { type PowerCutOptions, powerCuts } from './power-cuts.ts';
import { seededRandom } from './random.ts';
import type { Recording } from './recording.ts';

/** How far the enumeration goes. */
export interface CrashOptions {
  /** Up to so many pending changes (torn: pieces) every subset is tried. Default 6. */
  readonly exhaustive?: number;
  /** Random subsets tried above that, beside the systematic ones. Default 16. */
  readonly samples?: number;
  readonly seed?: number;
  /** Tears writes at 512 bytes. Default false. */
  readonly tear?: boolean;
  /** Flushes that count as absent: the switch that takes a barrier away. `barrier` is the name that the flush was called with. */
  readonly ignoreFlush?: (barrier: string) => boolean;
  /** Only states with `at` from here on: those after a log that the recording goes on with. Default 0. */
  readonly from?: number;
}

/** One legal state after a crash. */
export interface CrashState {
  /** The caller's own: may be written to. */
  readonly disk: MemoryDisk;
  /** Names the state, for replay: log position and the pending changes that survived. The same seed gives the same names. */
  readonly name: string;
  /**
   * When, as a number of the log: after that change (killed), or before that flush was over (power cut). What was promised when the log
   * had `length` entries must hold in every state with `at >= length`; equal bytes may be right before the promise and wrong after it.
   */
  readonly at: number;
}

/**
 * Every legal crash state of a recording, in order. The fault model:
 * - A killed process (`kill -9`) leaves every change made so far; the page cache survives. One state after each change.
 * - A power cut leaves what was durable, plus ANY subset of the changes since. Enumerated before each flush takes effect, when the
 *   most is pending (which includes the moments before), and at the end.
 * - A change of a file is durable after a flush of that file, a change of names after a flush of the directory of the name that was
 *   got or lost; in both cases a flush that was CALLED after the change. Flushing a new file does not make its name durable.
 * - A rename is one change: both names or neither, and the name that it replaces is never missing (ext4, XFS, btrfs).
 * - Changes that overlap keep their order. Everything else may be lost or kept independently, across files too: more than journaling
 *   file systems do, who keep changes of names in order.
 * - With `tear`, a write is torn at 512 bytes: every sector is kept or lost on its own. Zeroed and discarded ranges too, in at most 64
 *   pieces. That includes the write that a killed process was in the middle of.
 * Not modelled: garbage in sectors that were not written, an inode number that is used again, bytes of one sector torn.
 * Source: SQLite's crash VFS (test6.c), ALICE (OSDI'14).
 *
 * States may be equal to earlier ones; `MemoryDisk.digest` tells. Who skips those must keep states apart that are judged differently
 * (see `CrashState.at`).
 */
export function* crashStates(
  recording: Recording,
  options: CrashOptions = {},
): Generator<CrashState, void, undefined> {
  const { exhaustive = 6, samples = 16, seed = 1, tear = false, from = 0 } = options;
  const powerCut: PowerCutOptions = { exhaustive, samples, tear, random: seededRandom(seed) };
  const live = recording.initial.copy();
  let moment: Durability = { durable: recording.initial.copy(), pending: [] };
  for (const [at, entry] of recording.log.entries()) {
    if (entry.kind === 'file' || entry.kind === 'name') {
      applyChange(live, entry);
      if (at >= from) yield { disk: live.copy(), name: `kill@${at}`, at };
    } else {
      if (options.ignoreFlush?.(entry.barrier)) continue;
      if (at >= from) yield* statesOf(moment, at, powerCut);
    }
    moment = afterEntry(moment, at, entry);
  }
  yield* statesOf(moment, recording.log.length, powerCut);
}

function* statesOf(
  moment: Durability,
  at: number,
  options: PowerCutOptions,
): Generator<CrashState, void, undefined> {
  for (const { disk, kept } of powerCuts(moment, options))
    yield { disk, name: `power@${at}[${kept}]`, at };
}
