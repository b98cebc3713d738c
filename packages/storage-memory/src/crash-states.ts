/**
 * Which states of the disk a crash may leave behind (fault model):
 * - A killed process (`kill -9`): every change made so far; the page cache survives.
 * - A power cut: what was durable, plus ANY subset of the changes since. A change of a file is durable after a flush of that file
 *   that was called after it; a change of names after a flush of its directory. Changes that overlap keep their order; everything
 *   else may be lost or kept independently, across files too.
 * - Writes may be torn at 512 bytes (`tear`): each sector of a write counts as a change of its own.
 * Not modelled: garbage in sectors that were not written, reordering of overlapping writes.
 * Source: SQLite's crash VFS (test6.c), ALICE (OSDI'14).
 */
import type { FileChange } from './memory-backend.ts';
import { MemoryDisk } from './memory-disk.ts';
import type { LogEntry, Recording } from './recording.ts';

const SECTOR_BYTES = 512;

/** How far the enumeration goes. */
export interface CrashOptions {
  /** Up to so many pending changes every subset is tried. Default 6. */
  readonly exhaustive?: number;
  /** Random subsets tried above that, beside none, all, each alone, each missing and every prefix. Default 16. */
  readonly samples?: number;
  readonly seed?: number;
  /** Tears writes at 512 bytes. Default false. */
  readonly tear?: boolean;
  /** Flushes that count as absent: the switch that takes a barrier away. `barrier` is the name that the flush was called with. */
  readonly ignoreFlush?: (barrier: string) => boolean;
}

/** One legal state after a crash. */
export interface CrashState {
  readonly disk: MemoryDisk;
  /** Names the state, for replay: log position and the pending changes that survived. */
  readonly name: string;
}

type Change = Exclude<LogEntry, { kind: 'flush' | 'flush directory' }>;

/**
 * Every legal crash state of a recording, in order: for each moment the killed process's, and before each flush takes effect (when the most
 * is pending) and at the end the power cut's. States may be equal to earlier ones; `MemoryDisk.digest` tells.
 */
export function* crashStates(
  recording: Recording,
  options: CrashOptions = {},
): Generator<CrashState, void, undefined> {
  const random = randomFrom(options.seed ?? 1);
  let durable = recording.initial.copy();
  const live = recording.initial.copy();
  let pending: { readonly at: number; readonly change: Change }[] = [];
  for (const [at, entry] of recording.log.entries()) {
    if (entry.kind === 'flush' || entry.kind === 'flush directory') {
      if (options.ignoreFlush?.(entry.barrier)) continue;
      yield* powerCuts(durable, pending, at, options, random);
      const covered = (change: Change, index: number): boolean =>
        index < entry.covers && covers(entry, change);
      durable = durable.copy();
      for (const item of pending) if (covered(item.change, item.at)) apply(durable, item.change);
      pending = pending.filter((item) => !covered(item.change, item.at));
      continue;
    }
    apply(live, entry);
    for (const change of options.tear ? tear(entry) : [entry]) pending.push({ at, change });
    yield { disk: live.copy(), name: `kill@${at}` };
  }
  yield* powerCuts(durable, pending, recording.log.length, options, random);
}

function covers(flush: LogEntry, change: Change): boolean {
  if (flush.kind === 'flush') return change.kind === 'file' && change.inode === flush.inode;
  return (
    flush.kind === 'flush directory' &&
    change.kind === 'name' &&
    change.directory === flush.directory
  );
}

function* powerCuts(
  durable: MemoryDisk,
  pending: readonly { readonly change: Change }[],
  at: number,
  options: CrashOptions,
  random: () => number,
): Generator<CrashState, void, undefined> {
  for (const kept of subsets(pending.length, options, random)) {
    const disk = durable.copy();
    for (const index of kept) apply(disk, (pending[index] as { change: Change }).change);
    yield { disk, name: `power@${at}[${kept.join(',')}]` };
  }
}

/** Index sets, ascending. */
function* subsets(
  count: number,
  options: CrashOptions,
  random: () => number,
): Generator<readonly number[], void, undefined> {
  const all = Array.from({ length: count }, (_, index) => index);
  if (count <= (options.exhaustive ?? 6)) {
    for (let bits = 0; bits < 2 ** count; bits++) yield all.filter((index) => (bits >>> index) & 1);
    return;
  }
  yield [];
  yield all;
  for (const one of all) {
    yield [one];
    yield all.filter((index) => index !== one);
    yield all.slice(0, one + 1);
  }
  for (let sample = 0; sample < (options.samples ?? 16); sample++)
    yield all.filter(() => random() < 0.5);
}

function apply(disk: MemoryDisk, change: Change): void {
  if (change.kind === 'name') {
    if (change.inode === null) disk.names.delete(change.path);
    else {
      disk.names.delete(change.path);
      disk.create(change.path, change.inode);
    }
    return;
  }
  let file = disk.files.get(change.inode);
  if (file === undefined) {
    // created in a name change that may be lost: its bytes exist, its name may not
    const holder = new MemoryDisk();
    file = holder.fileOf(holder.create('/file', change.inode));
    disk.files.set(change.inode, file);
  }
  if (change.do === 'write') file.write(change.offset, change.bytes);
  else if (change.do === 'length') file.setLength(change.length);
  else file.zero(change.offset, change.length);
}

/** A write as one change for each sector it touches. */
function tear(entry: Change): readonly Change[] {
  if (entry.kind !== 'file' || entry.do !== 'write') return [entry];
  const write = entry as FileChange & { do: 'write'; kind: 'file' };
  const parts: Change[] = [];
  for (let done = 0; done < write.bytes.length; ) {
    const inside = (write.offset + done) % SECTOR_BYTES;
    const bytes = write.bytes.subarray(done, done + SECTOR_BYTES - inside);
    parts.push({ ...write, offset: write.offset + done, bytes });
    done += bytes.length;
  }
  return parts;
}

/** Mulberry32. */
function randomFrom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 0x1_0000_0000;
  };
}
