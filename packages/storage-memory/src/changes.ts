import type { MemoryDisk } from './memory-disk.ts';
import type { Change } from './observer.ts';

/** What a disk writes whole or not at all, in bytes. */
const SECTOR_BYTES = 512;
/** A zeroed or discarded range may be terabytes long: it is torn into so many pieces at most. */
const MOST_PIECES = 64;

/** Does to `disk` what was done when the change was recorded. Others before it may be missing. */
export function applyChange(disk: MemoryDisk, change: Change): void {
  const file = disk.fileOf(change.inode);
  switch (change.do) {
    case 'write':
      file.write(change.offset, change.bytes);
      return;
    case 'zero':
      file.zero(change.offset, change.length);
      return;
    case 'discard':
      file.discard(change.offset, change.length);
      return;
    case 'length':
      file.setLength(change.length);
      return;
    case 'create':
      disk.names.set(change.path, change.inode);
      return;
    case 'remove':
      if (disk.names.get(change.path) === change.inode) disk.names.delete(change.path);
      return;
    case 'rename':
      if (disk.names.get(change.from) === change.inode) disk.names.delete(change.from);
      disk.names.set(change.path, change.inode);
  }
}

/** How many pieces a power cut may tear the change into. */
export function pieceCount(change: Change): number {
  if (change.kind === 'name' || change.do === 'length') return 1;
  const length = change.do === 'write' ? change.bytes.length : change.length;
  const first = Math.floor(change.offset / SECTOR_BYTES);
  const sectors = Math.ceil((change.offset + length) / SECTOR_BYTES) - first;
  return change.do === 'write' ? sectors : Math.min(sectors, MOST_PIECES);
}

/** The change in pieces that end where sectors end. */
export function piecesOf(change: Change): readonly Change[] {
  const count = pieceCount(change);
  if (count === 1 || change.kind === 'name' || change.do === 'length') return [change];
  const { offset } = change;
  const end = offset + (change.do === 'write' ? change.bytes.length : change.length);
  const first = Math.floor(offset / SECTOR_BYTES);
  const step = Math.ceil((Math.ceil(end / SECTOR_BYTES) - first) / count);
  const pieces: Change[] = [];
  for (let at = offset, sector = first; at < end; ) {
    sector += step;
    const next = Math.min(end, sector * SECTOR_BYTES);
    if (change.do === 'write')
      pieces.push({
        ...change,
        offset: at,
        bytes: change.bytes.subarray(at - offset, next - offset),
      });
    else pieces.push({ ...change, offset: at, length: next - at });
    at = next;
  }
  return pieces;
}
