import { readSync, writeSync } from 'node:fs';

const PIECE = 1 << 16;
const NEWLINE = 0x0a;

/** Writes a value as one line of JSON, all of it; waits while a pipe is full. */
export function writeJsonLine(fd: number, value: unknown): void {
  const bytes = Buffer.from(`${JSON.stringify(value)}\n`);
  for (let at = 0; at < bytes.length; ) at += writeSync(fd, bytes, at);
}

/** Waits for one line of JSON, behind which nothing may be written before it is answered. Null at the end of a pipe. */
export function readJsonLine<T>(fd: number): T | null {
  const pieces: Buffer[] = [];
  for (;;) {
    const piece = Buffer.allocUnsafe(PIECE);
    const read = readSync(fd, piece);
    if (read === 0) return null;
    pieces.push(piece.subarray(0, read));
    if (piece[read - 1] === NEWLINE) return JSON.parse(Buffer.concat(pieces).toString()) as T;
  }
}
