import { assertSameBytes } from '@downfold/compliance';
import { guestOffset } from '@downfold/units';
import { type ImageCase, layerCases } from './cases.ts';
import { fillContent } from './content.ts';
import { fail } from './expect.ts';
import { type Layer, rangeOf } from './layer.ts';

/** Milliseconds after which a flush is taken to wait for something. */
const PATIENCE = 2000;

/** Members run while others run; ranges that do not overlap do not disturb each other. */
export const concurrencyCases: readonly ImageCase[] = [
  ...layerCases([
    {
      id: 'concurrent/one-cluster',
      because:
        'two writes to one new cluster both complete it from below; neither may undo the other',
      run: async (layer, { cluster }) => {
        await changeAtOnce(layer, [
          [3, 100],
          [200, 57],
          [300, 212],
          [cluster - 1, 2],
        ]);
      },
    },
    {
      id: 'concurrent/many-clusters',
      because: 'the engine keeps many copies in flight, and guests write meanwhile',
      run: async (layer, { cluster }) => {
        const step = cluster / 4;
        const ranges = Array.from(
          { length: Math.floor(layer.size / step) },
          (_, index) => [index * step, step - (index % 3)] as const,
        );
        await changeAtOnce(layer, ranges);
        await layer.verify();
        await changeAtOnce(layer, ranges);
      },
    },
    {
      id: 'concurrent/reading-while-writing',
      because: 'a guest reads one cluster while another is being written',
      run: async (layer, { cluster }) => {
        await layer.write(0, cluster);
        const target = new Uint8Array(cluster);
        await Promise.all([
          layer.image.read(guestOffset(0), target, layer.fill),
          layer.write(cluster + 5, cluster),
          layer.image.flush(),
        ]);
        assertSameBytes(target, layer.model.subarray(0, cluster), 'what was read meanwhile');
      },
    },
    {
      id: 'concurrent/place-kept-until-left',
      because:
        'whoever reads a file by itself would find there what was put in the place of what it looks for',
      needs: ['deallocate'],
      run: async (layer, { cluster }) => {
        await layer.write(0, cluster);
        await layer.image.flush();
        const [first] = await layer.extents();
        const [asked, left] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
        const listening = layer.image.beforeReuse?.(() => {
          asked.resolve();
          return left.promise;
        });
        if (listening == null || first?.status !== 'data') return;
        const [was, is] = [new Uint8Array(cluster), new Uint8Array(cluster)];
        await layer.image.data.read(first.host, was);
        await layer.deallocate(0, cluster);
        const flushing = layer.image.flush();
        // where nothing is given away nobody is asked
        await Promise.race([asked.promise, flushing]);
        for (let at = cluster; at + cluster <= layer.size; at += cluster)
          await layer.write(at, cluster);
        await layer.image.data.read(first.host, is);
        assertSameBytes(is, was, 'the place that somebody looks at');
        left.resolve();
        await flushing;
        listening[Symbol.dispose]();
      },
    },
  ]),
  {
    id: 'concurrent/flush-waits-for-nothing-later',
    because:
      'a flush that waited for later writes would never end under a guest that always writes',
    needs: ['backing'],
    run: async (bed) => {
      const layer = await bed.layer({ backed: true });
      await layer.write(0, bed.cluster);
      const flushing = layer.image.flush();
      const later = layer.image.write(guestOffset(bed.cluster + 1), new Uint8Array([1]), {
        fill: async (offset, target) => {
          await flushing;
          await layer.fill?.(offset, target);
        },
      });
      let timer: NodeJS.Timeout | undefined;
      const patience = new Promise<'late'>((resolve) => {
        timer = setTimeout(resolve, PATIENCE, 'late');
      });
      const first = await Promise.race([flushing, patience]);
      clearTimeout(timer);
      if (first === 'late') fail('flush waits for a write that came later');
      await later;
      layer.model[bed.cluster + 1] = 1;
      await layer.settle();
    },
  },
];

/** Writes and zeroes ranges that do not overlap, all at once. */
async function changeAtOnce(
  layer: Layer,
  ranges: readonly (readonly [at: number, length: number])[],
): Promise<void> {
  const fill = layer.fill;
  const options = {
    fill:
      fill === null
        ? null
        : async (...[offset, target]: Parameters<typeof fill>) => {
            for (let turn = 0; turn < 3; turn++) await Promise.resolve();
            await fill(offset, target);
          },
  };
  await Promise.all(
    ranges.map(async ([at, length], index) => {
      if (index % 3 === 2) {
        await layer.image.writeZeroes(rangeOf(at, length), options);
        layer.model.fill(0, at, at + length);
        return;
      }
      const source = new Uint8Array(length);
      fillContent(source, at, 50 + index);
      await layer.image.write(guestOffset(at), source, options);
      layer.model.set(source, at);
    }),
  );
}
