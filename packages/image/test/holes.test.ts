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
