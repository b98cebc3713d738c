import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { flags64, LARGEST_OFFSET, layout, raw, u8, u16, u32, u64 } from '../src/index.ts';

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

  test('gives back what it took, and changes no byte around it', () => {
    const word = fc.integer({ min: 0, max: 2 ** 32 - 1 });
    const value = fc.record({
      magic: word,
      kind: fc.integer({ min: 0, max: 255 }),
      spare: fc.integer({ min: 0, max: 255 }),
      half: fc.integer({ min: 0, max: 65_535 }),
      size: fc.integer({ min: 0, max: LARGEST_OFFSET }),
      flags: fc.tuple(word, word),
      tail: fc.uint8Array({ minLength: 3, maxLength: 3 }),
    });
    fc.assert(
      fc.property(value, fc.integer({ min: 0, max: 20 }), (one, base) => {
        const bytes = new Uint8Array(50).fill(0xee);
        sample.encode(one, bytes, base);
        expect(sample.decode(bytes, base)).toEqual(one);
        expect(bytes.subarray(0, base).every((byte) => byte === 0xee)).toBe(true);
        expect(bytes.subarray(base + 27).every((byte) => byte === 0xee)).toBe(true);
      }),
    );
  });

  test('reads and writes at its place in a view, not in the buffer behind it', () => {
    const buffer = new Uint8Array(40);
    const one = layout<{ a: number }>(4, { a: u32(0) });
    one.encode({ a: 0x01020304 }, buffer.subarray(10), 2);
    expect([...buffer.subarray(10, 17)]).toEqual([0, 0, 1, 2, 3, 4, 0]);
    expect(one.decode(buffer.subarray(12))).toEqual({ a: 0x01020304 });
    const copy = layout<{ a: Uint8Array }>(2, { a: raw(0, 2) }).decode(buffer.subarray(12));
    copy.a.fill(9);
    expect(buffer[12]).toBe(1);
  });

  test('refuses to write what does not fit, instead of cutting it', () => {
    const fields = { a: u8(0), b: u16(1), c: u32(3), d: u64(7) };
    const one = layout<{ a: number; b: number; c: number; d: number }>(15, fields);
    const largest = { a: 255, b: 65_535, c: 2 ** 32 - 1, d: LARGEST_OFFSET };
    const bytes = new Uint8Array(15);
    one.encode(largest, bytes);
    expect(one.decode(bytes)).toEqual(largest);
    for (const name of ['a', 'b', 'c', 'd'] as const)
      for (const bad of [largest[name] + 1, -1, 0.5, Number.NaN])
        expect(() => one.encode({ ...largest, [name]: bad }, bytes)).toThrow(
          expect.objectContaining({ code: 'UNITS_RANGE' }),
        );
    const text = layout<{ a: Uint8Array }>(4, { a: raw(0, 4) });
    for (const length of [3, 5])
      expect(() => text.encode({ a: new Uint8Array(length) }, bytes)).toThrow(
        expect.objectContaining({ code: 'UNITS_RANGE' }),
      );
  });

  test('refuses bytes that end before the structure', () => {
    expect(() => sample.decode(new Uint8Array(26))).toThrow(
      expect.objectContaining({ code: 'UNITS_RANGE' }),
    );
    expect(() => sample.decode(new Uint8Array(30), 4)).toThrow(
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
