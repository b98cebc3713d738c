import {
  bytesTo,
  type FileRun,
  openStorage,
  type Storage,
  type StorageDriver,
  StorageError,
} from '@downfold/storage';
import { alignUp, type ByteLength, type HostOffset } from '@downfold/units';
import type { FileChange, FileEvent } from './watched-file.ts';

const SECTOR_BYTES = 512;

/** Up to so many pending changes each one alone, and all but each one, are tried. */
const FEW = 12;

/** A write is torn into about as many. */
const PIECES = 16;

/** Subsets of pending changes drawn at each flush, beside none and all. */
const SAMPLES = 4;

/** What a power cut may leave of a file: `kept`, in order, on top of what was there when the log began. */
export interface Crash {
  /** Position in the log. */
  readonly at: number;
  readonly kept: readonly FileChange[];
}

/**
 * What power cuts may leave, at each flush (when most is pending) and at the end: all that is durable, plus any of the changes
 * since, whole or torn between sectors. Source of the fault model: SQLite's crash VFS, ALICE (OSDI'14).
 */
export function* crashes(
  log: readonly FileEvent[],
  random: () => number,
): Generator<Crash, void, undefined> {
  let covered = 0;
  for (let at = 0; at <= log.length; at++) {
    const event = log[at];
    if (event !== undefined && event.do !== 'flush') continue;
    const durable = changesOf(log, 0, covered);
    const pending = changesOf(log, covered, at);
    for (const some of subsets(pending, random)) yield { at, kept: [...durable, ...some] };
    const torn = pending.flatMap(tear);
    for (let sample = 0; sample < SAMPLES; sample++)
      yield { at, kept: [...durable, ...torn.filter(() => random() < 0.5)] };
    covered = Math.max(covered, event?.covers ?? 0);
  }
}

/** What is durable at the end of the log, and nothing else. */
export function durableChanges(log: readonly FileEvent[]): readonly FileChange[] {
  const covered = log.map((event) => (event.do === 'flush' ? event.covers : 0));
  return changesOf(log, 0, Math.max(0, ...covered));
}

/** A file that reads as `base` with `changes` made to it. Not to be written; does not own `base`. */
export function crashedStorage(base: Storage, changes: readonly FileChange[]): Storage {
  return openStorage(new CrashedFile(base, changes));
}

function changesOf(log: readonly FileEvent[], from: number, to: number): readonly FileChange[] {
  return log.slice(from, to).filter((event) => event.do !== 'flush');
}

function* subsets(
  all: readonly FileChange[],
  random: () => number,
): Generator<readonly FileChange[], void, undefined> {
  yield [];
  if (all.length === 0) return;
  yield all;
  if (all.length <= FEW)
    for (const one of all) {
      yield [one];
      yield all.filter((change) => change !== one);
    }
  for (let sample = 0; sample < SAMPLES; sample++) yield all.filter(() => random() < 0.5);
}

/** A write as changes of its own for pieces of it: sectors, or more of them where the write is long. */
function tear(change: FileChange): readonly FileChange[] {
  if (change.do !== 'write') return [change];
  const piece = Math.max(SECTOR_BYTES, alignUp(change.bytes.length / PIECES, SECTOR_BYTES));
  const parts: FileChange[] = [];
  for (let done = 0; done < change.bytes.length; ) {
    const offset = change.offset + done;
    const bytes = change.bytes.subarray(done, done + piece - (offset % piece));
    parts.push({ do: 'write', offset, bytes });
    done += bytes.length;
  }
  return parts;
}

class CrashedFile implements StorageDriver {
  readonly label: string;
  readonly writable = false;
  readonly supports: Storage['supports'] = { discard: false, resize: false };
  readonly identity: Storage['identity'];
  readonly descriptor = null;
  readonly #base: Storage;
  readonly #changes: readonly FileChange[];

  constructor(base: Storage, changes: readonly FileChange[]) {
    this.label = `${base.label} after a crash`;
    this.identity = base.identity;
    this.#base = base;
    this.#changes = changes;
  }

  async length(): Promise<ByteLength> {
    let length: number = await this.#base.length();
    for (const change of this.#changes)
      if (change.do === 'length') length = change.length;
      else length = Math.max(length, endOf(change));
    return length as ByteLength;
  }

  async runAt(offset: HostOffset): Promise<FileRun> {
    return bytesTo(await this.length(), offset);
  }

  async read(offset: HostOffset, target: Uint8Array): Promise<number> {
    await this.#base.read(offset, target);
    for (const change of this.#changes) {
      if (change.do === 'length') target.fill(0, Math.max(0, change.length - offset));
      else if (change.offset < offset + target.length && endOf(change) > offset)
        apply(change, offset, target);
    }
    return target.length;
  }

  write(): Promise<void> {
    return this.#refuse();
  }
  writeZeroes(): Promise<void> {
    return this.#refuse();
  }
  copyFrom(): Promise<number> {
    return this.#refuse();
  }
  discard(): Promise<void> {
    return this.#refuse();
  }
  setLength(): Promise<void> {
    return this.#refuse();
  }
  flush(): Promise<void> {
    return this.#refuse();
  }
  async [Symbol.asyncDispose](): Promise<void> {}

  async #refuse(): Promise<never> {
    throw new StorageError('STORAGE_READ_ONLY', `${this.label}: is for reading`);
  }
}

function endOf(change: Exclude<FileChange, { do: 'length' }>): number {
  return change.offset + (change.do === 'write' ? change.bytes.length : change.length);
}

function apply(
  change: Exclude<FileChange, { do: 'length' }>,
  offset: number,
  target: Uint8Array,
): void {
  const from = Math.max(0, change.offset - offset);
  const to = Math.min(target.length, endOf(change) - offset);
  if (change.do === 'zero') target.fill(0, from, to);
  else
    target.set(
      change.bytes.subarray(from + offset - change.offset, to + offset - change.offset),
      from,
    );
}
