import { readFileSync, writeFileSync } from 'node:fs';
import type { Bench } from './support.ts';

/** Changes an image of clusters of 64 KiB: its bytes, its first L2 table, its first L2 entry's place. */
export function spoil(
  work: Bench,
  name: string,
  change: (image: { bytes: Buffer; l2: number; first: number }) => void,
): void {
  const bytes = readFileSync(work.file(name));
  const low = (at: number): number => Number(bytes.readBigUInt64BE(at) & 0x00ff_ffff_ffff_ffffn);
  const l2 = low(low(40));
  // a compressed entry has the offset in its low 54 bits
  const first = Number(bytes.readBigUInt64BE(l2) & 0x003f_ffff_ffff_ffffn);
  change({ bytes, l2, first });
  writeFileSync(work.file(name), bytes);
}
