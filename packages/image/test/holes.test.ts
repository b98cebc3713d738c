import { seededRandom } from '@downfold/compliance';
import { hostOffset } from '@downfold/units';
import { expect, test } from 'vitest';
import { type ExtentBatch, ExtentList, KIND, withHoles } from '../src/index.ts';

const UNIT = 65_536;

/** Extents of data, and what was asked of a file of which every second 4 KiB is a hole. */
async function told(extents: readonly (readonly [start: number, end: number, host: number])[]) {
  const asked: number[] = [];
  const file = {
    runAt: async (at: number) => {
      asked.push(at);
      return { hole: (at >> 12) % 2 === 1, end: hostOffset(((at >> 12) + 1) << 12) };
    },
  };
  const list = new ExtentList();
  for (const [start, end, host] of extents) list.add(KIND.data, start, end, host);
  async function* batches(): AsyncGenerator<ExtentBatch> {
    yield list;
  }
  const kinds = new Set<number>();
  for await (const batch of withHoles(batches(), file, { unit: UNIT, end: 2 ** 40 }))
    for (let index = 0; index < batch.length; index++) kinds.add(batch.kinds[index] as number);
  return { asked: asked.length, kinds: [...kinds] };
}

test('of extents that are too short for a hole the file is not asked', async () => {
  const pieces = Array.from(
    { length: 1000 },
    (_, index) => [index * 3 * UNIT, index * 3 * UNIT + 4096, index * UNIT] as const,
  );
  // longer than a unit, and none of it whole
  const askew = [[5000 * UNIT + 1, 5001 * UNIT + UNIT - 1, 0]] as const;
  expect(await told([...pieces, ...askew])).toEqual({ asked: 0, kinds: [KIND.data] });
});

test('of others it is', async () => {
  expect((await told([[0, UNIT, 0]])).asked).toBe(16);
});

/** Where the file is a hole: borders in turn, data first. */
function fileOf(borders: readonly number[]) {
  return {
    runAt: async (at: number) => {
      const next = borders.findIndex((border) => border > at);
      const index = next < 0 ? borders.length : next;
      return { hole: index % 2 === 1, end: hostOffset(borders[index] ?? 2 ** 40) };
    },
  };
}

const SMALL = 8;
const replay = (seed: number): string => `seed ${seed}`;

test('units are holes where all of them lies in one, whatever batches and runs there are', async () => {
  for (let seed = 1; seed <= 500; seed++) {
    const random = seededRandom(seed);
    const below = (count: number): number => Math.floor(random() * count);
    // few long runs, or many short ones
    const long = below(2) === 0 ? 400 : 30;
    const borders = Array.from({ length: 40 }, () => 1 + below(long));
    for (let index = 1; index < borders.length; index++)
      borders[index] = (borders[index] as number) + (borders[index - 1] as number);
    const lists: ExtentList[] = [];
    const places: (number | null)[] = [];
    for (let batch = 0; batch < 4; batch++) {
      const list = new ExtentList();
      for (let left = 1 + below(6); left > 0; left--) {
        const start = places.length;
        const length = below(3) === 0 ? 1 + below(40) : SMALL * (1 + below(6));
        const [isData, host] = [below(4) > 0, below(600)];
        list.add(isData ? KIND.data : KIND.zero, start, start + length, host);
        for (let at = 0; at < length; at++) places.push(isData ? host + at : null);
      }
      lists.push(list);
    }
    const end = places.length;
    async function* batches(): AsyncGenerator<ExtentBatch> {
      yield* lists;
    }
    const told: number[] = [];
    for await (const { length, starts, ends, kinds, hosts } of withHoles(
      batches(),
      fileOf(borders),
      { unit: SMALL, end },
    ))
      for (let index = 0; index < length; index++)
        for (let at = starts[index] as number; at < (ends[index] as number); at++) {
          expect(at, replay(seed)).toBe(told.length);
          told.push(kinds[index] as number);
          const host = (hosts[index] as number) + at - (starts[index] as number);
          if (kinds[index] !== KIND.zero) expect(host, replay(seed)).toBe(places[at]);
        }
    const isHole = (place: number | null | undefined): boolean =>
      place != null && borders.filter((border) => border <= place).length % 2 === 1;
    const wanted = places.map((place, at) => {
      if (place === null) return KIND.zero;
      const start = at - (at % SMALL);
      const unit = places.slice(start, start + SMALL);
      const first = unit[0];
      const isOne = first != null && unit.every((one, index) => one === first + index);
      // one extent, and one run of the file
      return isOne && unit.every(isHole) ? KIND.hole : KIND.data;
    });
    expect(told, replay(seed)).toEqual(wanted);
  }
});
