import { isPowerOfTwo } from '@downfold/units';

/**
 * Refcounts of every width in the bytes of a refcount block. Widths below 8 bits are packed from the least significant bit;
 * wider ones are big-endian. Source: qcow2.rst, "Host cluster management".
 */

/** Whether the format has refcounts of a width: 1, 2, 4, 8, 16, 32 or 64 bits. */
export function isRefcountWidth(bits: number): boolean {
  return isPowerOfTwo(bits) && bits <= 64;
}

/** Largest refcount of a width that this code stores: 64-bit counts stop at 2^53-1. */
export function largestRefcount(bits: number): number {
  return bits >= 53 ? Number.MAX_SAFE_INTEGER : 2 ** bits - 1;
}

/** Refcount number `index` of a block. A 64-bit count above 2^53-1 reads as 2^53-1. */
export function refcountAt(block: Uint8Array, index: number, bits: number): number {
  if (bits === 16) return ((block[2 * index] as number) << 8) | (block[2 * index + 1] as number);
  if (bits === 8) return block[index] as number;
  if (bits < 8) {
    const bit = index * bits;
    return ((block[bit >>> 3] as number) >>> (bit & 7)) & ((1 << bits) - 1);
  }
  const view = new DataView(block.buffer, block.byteOffset);
  if (bits === 32) return view.getUint32(4 * index);
  return Math.min(
    view.getUint32(8 * index) * 2 ** 32 + view.getUint32(8 * index + 4),
    Number.MAX_SAFE_INTEGER,
  );
}

/** Sets refcount number `index` of a block; `value` must fit the width. */
export function setRefcount(block: Uint8Array, index: number, bits: number, value: number): void {
  if (bits < 8) {
    const bit = index * bits;
    const mask = ((1 << bits) - 1) << (bit & 7);
    block[bit >>> 3] = ((block[bit >>> 3] as number) & ~mask) | (value << (bit & 7));
    return;
  }
  if (bits === 8) {
    block[index] = value;
    return;
  }
  if (bits === 16) {
    block[2 * index] = value >>> 8;
    block[2 * index + 1] = value & 0xff;
    return;
  }
  const view = new DataView(block.buffer, block.byteOffset);
  if (bits === 32) view.setUint32(4 * index, value);
  else {
    view.setUint32(8 * index, Math.floor(value / 2 ** 32));
    view.setUint32(8 * index + 4, value % 2 ** 32);
  }
}
