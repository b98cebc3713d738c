import type { MemoryDisk } from '@downfold/storage-memory';
import { IMAGE } from './seed-images.ts';

/**
 * The refcount of a cluster of an image that has sound refcounts, of any width, read by a small reader of its own: the code under test is not asked.
 * Layout: docs/interop/qcow2.txt of QEMU (the specification).
 */
export function refcountIn(disk: MemoryDisk, cluster: number): number {
  const file = disk.fileOf(disk.inodeOf(IMAGE));
  const bytes = (at: number, length: number): Buffer => {
    const read = Buffer.alloc(length);
    file.read(at, read);
    return read;
  };
  const header = bytes(0, 104);
  const bits = header.readUInt32BE(4) === 2 ? 16 : 2 ** header.readUInt32BE(96);
  const perBlock = (8 * 2 ** header.readUInt32BE(20)) / bits;
  const entry = Number(header.readBigUInt64BE(48)) + 8 * Math.floor(cluster / perBlock);
  const block = Number(bytes(entry, 8).readBigUInt64BE());
  if (block === 0) return 0;
  const bit = (cluster % perBlock) * bits;
  if (bits >= 8) return bytes(block + bit / 8, bits / 8).reduce((sum, byte) => 256 * sum + byte, 0);
  return (bytes(block + Math.floor(bit / 8), 1).readUInt8() >>> (bit % 8)) & (2 ** bits - 1);
}
