import { closeSync, openSync, readSync, truncateSync, writeSync } from 'node:fs';
import type { Bench } from './support.ts';

/** Position of the first refcount block of an image, by the two pointers that lead there. */
function refcountBlockOf(file: number): number {
  const pointer = Buffer.alloc(8);
  readSync(file, pointer, 0, 8, 48);
  readSync(file, pointer, 0, 8, Number(pointer.readBigUInt64BE()));
  return Number(pointer.readBigUInt64BE());
}

/** Writes 16-bit refcounts into an image with clusters of 64 KiB; the file is made long enough. */
function setRefcount(work: Bench, name: string, cluster: number, count: number): void {
  const file = openSync(work.file(name), 'r+');
  const bytes = Buffer.alloc(2);
  bytes.writeUInt16BE(count);
  writeSync(file, bytes, 0, 2, refcountBlockOf(file) + 2 * cluster);
  closeSync(file);
}

/** A cluster behind the end of the file. */
const LEAKED = 60;
export const leak = (work: Bench): void => {
  setRefcount(work, 'base.qcow2', LEAKED, 1);
  truncateSync(work.file('base.qcow2'), (LEAKED + 1) * 65_536);
};
/** Cluster 5 holds data: it is referenced, and now counted as free. */
const corrupt = (work: Bench): void => setRefcount(work, 'base.qcow2', 8, 0);

/** What is done to `base.qcow2` of a chain, and with what code a check ends. */
export const cases: readonly [name: string, spoil: (work: Bench) => void, code: number][] = [
  ['a clean image', () => {}, 0],
  ['a leak', leak, 3],
  ['a corruption', corrupt, 2],
  ['both', (work) => [leak(work), corrupt(work)], 2],
];

/** The first entry of the refcount table is gone: what it counted is not counted any more. */
export const noBlock = (work: Bench): void => {
  const file = openSync(work.file('base.qcow2'), 'r+');
  const pointer = Buffer.alloc(8);
  readSync(file, pointer, 0, 8, 48);
  writeSync(file, Buffer.alloc(8), 0, 8, Number(pointer.readBigUInt64BE()));
  closeSync(file);
};
