import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  advance,
  alignDown,
  alignUp,
  byteLength,
  ceilDivide,
  DownfoldError,
  guestOffset,
  hostOffset,
  intersect,
  isPowerOfTwo,
  LARGEST_OFFSET,
  rangeBetween,
  rangeEnd,
  splitRange,
  UnitsError,
} from '../src/index.ts';

const offset = fc.integer({ min: 0, max: LARGEST_OFFSET });

describe('offsets', () => {
  test.each([guestOffset, hostOffset, byteLength])(
    '%o takes whole numbers up to 2^53-1',
    (make) => {
      expect(make(0)).toBe(0);
      expect(make(LARGEST_OFFSET)).toBe(LARGEST_OFFSET);
      for (const bad of [-1, 0.5, Number.NaN, Number.POSITIVE_INFINITY])
        expect(() => make(bad)).toThrow(UnitsError);
    },
  );

  test('a value above 2^53-1 is refused with its own code, not rounded', () => {
    expect(() => hostOffset(2 ** 53)).toThrow(expect.objectContaining({ code: 'UNITS_TOO_LARGE' }));
    expect(() => advance(hostOffset(LARGEST_OFFSET), 1)).toThrow(
      expect.objectContaining({ code: 'UNITS_TOO_LARGE' }),
    );
  });
});

describe('arithmetic is exact beyond 32 bits', () => {
  test('align and divide agree with BigInt', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 0, max: 2 ** 52 }),
        fc.integer({ min: 0, max: 21 }),
        (value, bits) => {
          const unit = 2 ** bits;
          const [big, bigUnit] = [BigInt(value), BigInt(unit)];
          expect(BigInt(alignDown(value, unit))).toBe((big / bigUnit) * bigUnit);
          expect(BigInt(alignUp(value, unit))).toBe(((big + bigUnit - 1n) / bigUnit) * bigUnit);
          expect(BigInt(ceilDivide(value, unit))).toBe((big + bigUnit - 1n) / bigUnit);
        },
      ),
    );
  });

  test('powers of two, and nothing else', () => {
    expect([1, 2, 512, 2 ** 40].every(isPowerOfTwo)).toBe(true);
    expect([0, -2, 3, 513, 0.5, 2 ** 40 + 1].some(isPowerOfTwo)).toBe(false);
  });
});

describe('ranges', () => {
  test('the intersection holds exactly the bytes in both', () => {
    const small = fc.integer({ min: 0, max: 40 });
    fc.assert(
      fc.property(small, small, small, small, (a, aLength, b, bLength) => {
        const both = intersect(
          { offset: guestOffset(a), length: byteLength(aLength) },
          { offset: guestOffset(b), length: byteLength(bLength) },
        );
        for (let at = 0; at < 90; at++) {
          const expected = at >= a && at < a + aLength && at >= b && at < b + bLength;
          expect(both !== null && at >= both.offset && at < rangeEnd(both)).toBe(expected);
        }
      }),
    );
  });

  test('pieces are gapless, in order, and end on multiples', () => {
    fc.assert(
      fc.property(
        offset,
        fc.integer({ min: 0, max: 5000 }),
        fc.integer({ min: 1, max: 700 }),
        (start, length, piece) => {
          fc.pre(start + length <= LARGEST_OFFSET);
          let at = start;
          for (const part of splitRange(rangeBetween(guestOffset(start), start + length), piece)) {
            expect(part.offset).toBe(at);
            at += part.length;
            expect(at === start + length || at % piece === 0).toBe(true);
          }
          expect(at).toBe(start + length);
        },
      ),
    );
  });
});

test('ranges between two offsets: empty when they are the wrong way round', () => {
  expect(rangeBetween(hostOffset(5), 9)).toEqual({ offset: 5, length: 4 });
  expect(rangeBetween(hostOffset(5), 5).length).toBe(0);
  expect(rangeBetween(hostOffset(5), 2).length).toBe(0);
  expect([...splitRange(rangeBetween(hostOffset(5), 2), 4)]).toEqual([]);
});

test('errors carry a code, details and a cause', () => {
  const cause = new Error('EIO');
  const error = new DownfoldError('SOME_CODE', 'a message', { image: 'a.qcow2' }, cause);
  expect(error).toMatchObject({ code: 'SOME_CODE', details: { image: 'a.qcow2' }, cause });
  expect(error).toBeInstanceOf(Error);
  expect(error.name).toBe('DownfoldError');
  expect('cause' in new DownfoldError('SOME_CODE', 'a message')).toBe(false);
  expect(new UnitsError('UNITS_RANGE', 'x').name).toBe('UnitsError');
});
