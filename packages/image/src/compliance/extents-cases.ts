import { assertSameBytes } from '@downfold/compliance';
import { byteLength, guestOffset } from '@downfold/units';
import { type ImageCase, layerCases } from './cases.ts';
import { fillContent } from './content.ts';
import { expectEqual, fail } from './expect.ts';
import { bytesThatAre, extentsOf } from './extents-of.ts';
import { type Interval, subtract } from './intervals.ts';
import { rangeOf } from './layer.ts';

const GIB = 2 ** 30;

/** `extents`: ordered, gapless, non-empty, exactly the range, maximal within a batch. */
export const extentsCases: readonly ImageCase[] = [
  ...layerCases([
    {
      id: 'extents/any-range',
      because: 'planners ask for ranges that cut allocation units',
      run: async (layer, { cluster }) => {
        await layer.write(0, cluster);
        await layer.writeZeroes(cluster, cluster / 2);
        await layer.write(layer.size - 7, 7);
        const all = await layer.extents();
        const edges = [0, 1, 511, cluster - 1, cluster, cluster * 2, layer.size - 1, layer.size];
        for (const from of edges)
          for (const to of edges.filter((edge) => edge >= from)) {
            const part = await extentsOf(layer.image, rangeOf(from, to - from));
            for (const status of ['data', 'zero', 'unallocated', 'compressed'] as const)
              expectEqual(
                bytesThatAre(status, part),
                inside(bytesThatAre(status, all), from, to),
                `bytes of [${from}, ${to}) that are ${status}`,
              );
          }
      },
    },
    {
      id: 'extents/neighbours-merge',
      because: 'one extent a cluster would make a plan as long as the disk',
      run: async (layer, { cluster }) => {
        for (const at of [0, cluster]) await layer.writeZeroes(at, cluster);
        await layer.verify();
        const batches: number[] = [];
        for await (const batch of layer.image.extents(rangeOf(0, cluster * 2)))
          batches.push(batch.length);
        if (Math.max(...batches) > 2) fail(`${batches} extents for two clusters of zeros`);
      },
    },
    {
      id: 'extents/of-nothing',
      because: 'an empty range has no extents, since none is empty',
      run: async (layer) => {
        for (const at of [0, 1, layer.size])
          expectEqual(await extentsOf(layer.image, rangeOf(at, 0)), [], `extents at ${at}`);
      },
    },
    {
      id: 'extents/data-lies-where-it-says',
      because: 'the engine copies from file to file by `host`',
      run: async (layer, { cluster }) => {
        await layer.write(cluster + 3, cluster);
        await layer.image.flush();
        const range = rangeOf(cluster + 13, 101);
        for (const extent of await extentsOf(layer.image, range)) {
          if (extent.status !== 'data') continue;
          const bytes = new Uint8Array(extent.length);
          await layer.image.data.read(extent.host, bytes);
          const at: number = extent.offset;
          assertSameBytes(
            bytes,
            layer.model.subarray(at, at + extent.length),
            `host bytes of ${at}`,
          );
        }
      },
    },
  ]),
  {
    id: 'extents/far-apart',
    because: 'tables end at powers of two; what crosses them must not lose a byte',
    run: async (bed) => {
      const file = await bed.newFile();
      await using image = await bed.create(file, GIB + 512, null);
      const marks = [0, ...[20, 21, 25, 28, 29, 30].map((power) => 2 ** power - 256)];
      const bytes = new Uint8Array(512);
      for (const at of marks) {
        fillContent(bytes, at, 1);
        await image.write(guestOffset(at), bytes, { fill: null });
      }
      await image.flush();
      const whole = { offset: guestOffset(0), length: byteLength(GIB + 512) };
      const extents = await extentsOf(image, whole);
      const held = [...bytesThatAre('data', extents), ...bytesThatAre('compressed', extents)];
      const written = marks.map((at): Interval => [at, at + 512]);
      expectEqual(subtract(written, held), [], 'bytes that were written and have no extent');
      const [target, expected] = [new Uint8Array(1024), new Uint8Array(1024)];
      for (const at of marks.slice(1)) {
        await image.read(guestOffset(at - 256), target, null);
        fillContent(expected.subarray(256, 768), at, 1);
        assertSameBytes(target.subarray(0, 768), expected.subarray(0, 768), `around byte ${at}`);
      }
    },
  },
];

/** What of `intervals` lies in [from, to). */
function inside(intervals: readonly Interval[], from: number, to: number): readonly Interval[] {
  return subtract(intervals, [
    [0, from],
    [to, Number.MAX_SAFE_INTEGER],
  ]);
}
