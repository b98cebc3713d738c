import { describe, expect, test } from 'vitest';
import { usedWords } from '../src/words.ts';

describe('the zeros that a table ends with', () => {
  test.each([Uint16Array, Uint32Array, Float64Array])(
    '%o: nothing before them is left out',
    (Words) => {
      for (const length of [0, 1, 2, 3, 7, 64, 257, 1000])
        for (let last = 0; last < length; last++) {
          const words = new Words(length);
          // the lowest bit, and the highest
          for (const value of [1, 0x8000]) {
            words[last] = value;
            expect(usedWords(words)).toBeGreaterThan(last);
          }
        }
    },
  );

  test('a table that is all but empty is all but done', () => {
    const words = new Uint32Array(8192);
    expect(usedWords(words)).toBe(0);
    words[5] = 1;
    expect(usedWords(words)).toBeLessThanOrEqual(256);
    words[1000] = 1;
    expect(usedWords(words)).toBeLessThanOrEqual(1024);
    expect(usedWords(new Uint32Array(0))).toBe(0);
  });

  test('a part of a larger table is that part alone', () => {
    const words = new Uint16Array(1000);
    words[600] = 1;
    expect(usedWords(words.subarray(0, 500))).toBe(0);
    expect(usedWords(words.subarray(500, 1000))).toBeGreaterThan(100);
  });
});
