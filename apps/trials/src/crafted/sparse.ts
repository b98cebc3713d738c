import { closeSync, ftruncateSync, openSync, writeSync } from 'node:fs';

/** A file that is mostly holes: bytes at offsets, and a length. */
export interface SparseFile {
  readonly length: number;
  readonly pieces: readonly { readonly at: number; readonly bytes: Uint8Array }[];
}

/** Writes the file; what no piece covers is a hole. Later pieces overwrite earlier ones. */
export function writeSparse(path: string, file: SparseFile): void {
  const fd = openSync(path, 'w');
  try {
    ftruncateSync(fd, file.length);
    for (const { at, bytes } of file.pieces) {
      for (let done = 0; done < bytes.length; )
        done += writeSync(fd, bytes, done, bytes.length - done, at + done);
    }
    ftruncateSync(fd, file.length);
  } finally {
    closeSync(fd);
  }
}

/** A table of 64-bit big-endian entries. */
export function entries64(values: readonly bigint[]): Uint8Array {
  const bytes = Buffer.alloc(values.length * 8);
  for (const [index, value] of values.entries())
    bytes.writeBigUInt64BE(BigInt.asUintN(64, value), index * 8);
  return bytes;
}

/** A table of 16-bit big-endian entries. */
export function entries16(values: readonly number[]): Uint8Array {
  const bytes = Buffer.alloc(values.length * 2);
  for (const [index, value] of values.entries()) bytes.writeUInt16BE(value, index * 2);
  return bytes;
}
