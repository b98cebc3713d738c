import { describe, expect, test } from 'vitest';
import { flags64, layout, raw, u8, u16, u32, u64 } from '../src/index.ts';

interface Sample {
  readonly magic: number;
  readonly kind: number;
  readonly spare: number;
  readonly half: number;
  readonly size: number;
  readonly flags: readonly [number, number];
  readonly tail: Uint8Array;
}

const sample = layout<Sample>(27, {
  magic: u32(0),
  kind: u8(4),
  spare: u8(5),
  half: u16(6),
  size: u64(8),
  flags: flags64(16),
  tail: raw(24, 3),
});

describe('a layout', () => {
  test('reads big-endian bytes written by hand', () => {
    const bytes = Uint8Array.from([
      0x51, 0x46, 0x49, 0xfb, 7, 8, 0x12, 0x34, 0, 0x1f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x80,
      0, 0, 1, 0, 0, 0, 2, 9, 9, 9,
    ]);
    const value = sample.decode(bytes);
    expect(value).toEqual({
      magic: 0x514649fb,
      kind: 7,
      spare: 8,
      half: 0x1234,
      size: Number.MAX_SAFE_INTEGER,
      flags: [0x80000001, 2],
      tail: Uint8Array.from([9, 9, 9]),
    });
    const again = new Uint8Array(30);
    sample.encode(value, again, 3);
    expect(again.subarray(3)).toEqual(bytes);
  });

  test('refuses a 64-bit field above 2^53-1 instead of rounding it', () => {
    const bytes = new Uint8Array(27);
    bytes[9] = 0x20;
    expect(() => sample.decode(bytes)).toThrow(
      expect.objectContaining({ code: 'UNITS_TOO_LARGE' }),
    );
  });

  test('refuses bytes that end before the structure', () => {
    expect(() => sample.decode(new Uint8Array(26))).toThrow(
      expect.objectContaining({ code: 'UNITS_RANGE' }),
    );
  });

  test('refuses a table with a gap, an overlap or another size', () => {
    expect(() => layout<{ a: number; b: number }>(9, { a: u32(0), b: u32(5) })).toThrow(
      'expected 4',
    );
    expect(() => layout<{ a: number; b: number }>(7, { a: u32(0), b: u32(3) })).toThrow(
      'expected 4',
    );
    expect(() => layout<{ a: number }>(8, { a: u32(0) })).toThrow('fields end at 4');
  });
});
