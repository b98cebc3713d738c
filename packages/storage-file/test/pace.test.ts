import { describe, expect, test } from 'vitest';
import { Pace } from '../src/pace.ts';

const MIB = 1 << 20;

/** Whether a file is slow of which so many MiB were read in pieces, each in so long. */
function isSlow(mebibytes: number, piece: number, milliseconds: number): boolean {
  const pace = new Pace();
  for (let done = 0; done < mebibytes * MIB; done += piece) pace.note(piece, milliseconds);
  return pace.isSlow;
}

describe('a file is slow', () => {
  test.each([
    // a disk of 500 MB a second; pieces of 4 KiB of an NVMe disk; of a spinning one
    [MIB, 2],
    [4096, 0.1],
    [4096, 5],
  ])('of which %i bytes take %f ms', (piece, milliseconds) => {
    expect(isSlow(4, piece, milliseconds)).toBe(true);
  });

  test.each([
    // from memory: whole pieces, and small ones, whose calls take longer than their bytes
    [MIB, 0.2],
    [4096, 0.006],
    [512, 0.004],
  ])('not of which %i bytes take %f ms', (piece, milliseconds) => {
    expect(isSlow(4, piece, milliseconds)).toBe(false);
  });

  test('until much of it came from memory: what was announced does', () => {
    const pace = new Pace();
    for (let read = 0; read < 4; read++) pace.note(MIB, 5);
    for (let read = 0; read < 100; read++) pace.note(MIB, 0.2);
    expect(pace.isSlow).toBe(true);
    for (let read = 0; read < 28; read++) pace.note(MIB, 0.2);
    expect(pace.isSlow).toBe(false);
  });
});
