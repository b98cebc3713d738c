import { LARGEST_OFFSET } from '@downfold/units';

const TWO_TO_32 = 0x1_0000_0000;

/** 64 bits as a number. Above 2^53-1 it is `Infinity`: outside of every range, and never rounded into one. */
export function readU64(from: Buffer, at: number): number {
  const value = from.readUInt32BE(at) * TWO_TO_32 + from.readUInt32BE(at + 4);
  return value <= LARGEST_OFFSET ? value : Number.POSITIVE_INFINITY;
}

/** Writes a whole number of 0 to 2^53-1 into 64 bits. */
export function writeU64(to: Buffer, at: number, value: number): void {
  to.writeUInt32BE(Math.floor(value / TWO_TO_32), at);
  to.writeUInt32BE(value % TWO_TO_32, at + 4);
}

/** Whether the 64 bits are `[high, low]`. */
export function isMagic(from: Buffer, at: number, magic: readonly [number, number]): boolean {
  return from.readUInt32BE(at) === magic[0] && from.readUInt32BE(at + 4) === magic[1];
}

/** Writes `[high, low]` into 64 bits. */
export function writeMagic(to: Buffer, at: number, magic: readonly [number, number]): void {
  to.writeUInt32BE(magic[0], at);
  to.writeUInt32BE(magic[1], at + 4);
}
