import { byteLength, guestOffset, rangeEnd } from '@downfold/units';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { DirtyMap } from '../src/index.ts';
import { range } from './support.ts';

const TIB = 2 ** 40;

/** The dirty runs of a map, joined. */
function runs(map: DirtyMap, most?: number): [offset: number, length: number][] {
  const found: [number, number][] = [];
  for (let at = guestOffset(0); ; ) {
    const run = map.next(at, most);
    if (run === null) return found;
    found.push([run.offset, run.length]);
    at = guestOffset(rangeEnd(run));
  }
}

describe('DirtyMap', () => {
  it('agrees with a list of chunks, whatever is set and cleared, page borders included', () => {
    const size = 3 * 32_768 * 2 - 1;
    const place = fc.oneof(
      fc.integer({ min: 0, max: size }),
      // around the ends of pages and words
      fc
        .tuple(
          fc.constantFrom(0, 32, 64, 32_768, 65_536, 65_600, 98_303),
          fc.integer({ min: -3, max: 3 }),
        )
        .map(([chunk, off]) => Math.min(size, Math.max(0, chunk * 2 + off))),
    );
    const change = fc.record({ what: fc.constantFrom('set', 'clear'), a: place, b: place });
    fc.assert(
      fc.property(fc.array(change, { maxLength: 12 }), (changes) => {
        const map = new DirtyMap(byteLength(size), 2);
        const model = new Uint8Array(Math.ceil(size / 2));
        for (const { what, a, b } of changes) {
          const [from, to] = [Math.min(a, b), Math.max(a, b)];
          map[what as 'set' | 'clear'](range(from, to - from));
          if (what === 'set') {
            if (to > from) model.fill(1, Math.floor(from / 2), Math.ceil(to / 2));
          } else {
            const after = to === size ? model.length : Math.floor(to / 2);
            model.fill(0, Math.ceil(from / 2), Math.max(Math.ceil(from / 2), after));
          }
        }
        expect(map.count).toBe(model.reduce((sum, bit) => sum + bit, 0));
        const expected: [number, number][] = [];
        for (let at = 0; at < model.length; at++) {
          if (model[at] === 0) continue;
          const start = at;
          while (at < model.length && model[at] === 1) at++;
          expected.push([start * 2, Math.min(at * 2, size) - start * 2]);
        }
        expect(runs(map)).toEqual(expected);
      }),
      { numRuns: 150, seed: 1 },
    );
  });

  it('starts a run where it is asked from, and ends it where it is told to', () => {
    const map = new DirtyMap(byteLength(10_000), 1024);
    map.set(range(1500, 5000));
    expect(map.next(guestOffset(0))).toEqual(range(1024, 6144));
    expect(map.next(guestOffset(3000))).toEqual(range(2048, 5120));
    expect(map.next(guestOffset(0), 2500)).toEqual(range(1024, 2048));
    expect(map.next(guestOffset(0), 1)).toEqual(range(1024, 1024));
    expect(map.next(guestOffset(7168))).toBeNull();
  });

  it('keeps a chunk dirty that is cleared in part only, but for the one that the end of the disk cuts', () => {
    const map = new DirtyMap(byteLength(2500), 1024);
    map.set(range(0, 2500));
    map.clear(range(1, 1023));
    expect(map.count).toBe(3);
    map.clear(range(1024, 1100));
    expect(map.count).toBe(2);
    map.clear(range(2048, 452));
    expect(runs(map)).toEqual([[0, 1024]]);
  });

  it('takes no range for nothing, and none past the end; grows', () => {
    const map = new DirtyMap(byteLength(1000), 512);
    map.set(range(100, 0));
    expect(map.count).toBe(0);
    expect(() => map.set(range(0, 1001))).toThrow('past');
    expect(() => map.clear(range(1000, 1))).toThrow('past');
    map.set(range(999, 1));
    map.grow(byteLength(5000));
    expect(runs(map)).toEqual([[512, 512]]);
    map.set(range(4999, 1));
    expect(runs(map)).toEqual([
      [512, 512],
      [4608, 392],
    ]);
    expect(() => new DirtyMap(byteLength(1), 3)).toThrow('power of two');
  });

  it('is cheap for terabytes: all of it dirty, and one dirty chunk at the end', () => {
    const map = new DirtyMap(byteLength(64 * TIB), 65_536);
    const before = process.memoryUsage().arrayBuffers;
    map.set(range(0, 64 * TIB));
    expect(map.count).toBe((64 * TIB) / 65_536);
    expect(map.next(guestOffset(5))).toEqual(range(0, 64 * TIB));
    map.clear(range(0, 64 * TIB - 65_536));
    expect(runs(map)).toEqual([[64 * TIB - 65_536, 65_536]]);
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(1 << 20);
  });
});
