import { posix } from 'node:path';
import { applyChange } from './changes.ts';
import type { MemoryDisk } from './memory-disk.ts';
import type { Change } from './observer.ts';
import type { Flush, LogEntry, Recording } from './recording.ts';

/** A change that a power cut may lose, and its number in the log. */
interface Pending {
  readonly at: number;
  readonly change: Change;
}

/** What is durable and what is pending at one moment of a recording. */
export interface Durability {
  readonly durable: MemoryDisk;
  /** In the order of the log. */
  readonly pending: readonly Pending[];
}

/** The moment after entry number `at` of the log. The disk of `before` is left alone. */
export function afterEntry(before: Durability, at: number, entry: LogEntry): Durability {
  if (entry.kind === 'file' || entry.kind === 'name')
    return { durable: before.durable, pending: [...before.pending, { at, change: entry }] };
  const durable = before.durable.copy();
  const pending: Pending[] = [];
  for (const item of before.pending) {
    if (item.at < entry.covers && concerns(entry, item.change)) applyChange(durable, item.change);
    else pending.push(item);
  }
  return { durable, pending };
}

/** Whether the flush is of the file that changed, or of the directory of the name that it got or lost. */
function concerns(flush: Flush, change: Change): boolean {
  if (flush.kind === 'flush') return change.kind === 'file' && change.inode === flush.inode;
  return change.kind === 'name' && posix.dirname(change.path) === flush.directory;
}

/** What is on stable storage for certain at the end of a recording: what a power cut may lose, it lost. */
export function durableDisk(recording: Recording): MemoryDisk {
  let moment: Durability = { durable: recording.initial, pending: [] };
  for (const [at, entry] of recording.log.entries()) moment = afterEntry(moment, at, entry);
  return moment.durable.copy();
}
