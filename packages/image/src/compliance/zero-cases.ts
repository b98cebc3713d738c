import { type ImageCase, lastCluster, layerCases } from './cases.ts';
import { expectEqual, fail } from './expect.ts';
import { extentsOf } from './extents-of.ts';
import { rangeOf } from './layer.ts';

/** `writeZeroes`: zero is not unallocated. */
export const zeroCases: readonly ImageCase[] = [
  ...layerCases([
    {
      id: 'zero/odd-offsets',
      because: 'the ends of a range of zeros cut clusters, whose other bytes stay',
      run: async (layer, { cluster }) => {
        for (const over of ['nothing', 'data']) {
          if (over === 'data') await layer.write(0, layer.size);
          for (const [at, length] of [
            [5, 1],
            [cluster - 1, 2],
            [cluster + 511, cluster + 1],
          ] as const) {
            await layer.writeZeroes(at, length);
            await layer.verify();
          }
        }
      },
    },
    {
      id: 'zero/over-data',
      because: 'what was written goes, in whole clusters and in parts of them',
      run: async (layer, { cluster }) => {
        await layer.write(0, layer.size);
        await layer.writeZeroes(cluster, cluster);
        await layer.verify();
        await layer.writeZeroes(7, cluster);
      },
    },
    {
      id: 'zero/whole-disk',
      because: 'a short layer below a longer one is zeroed in one piece',
      run: async (layer, { cluster }) => {
        await layer.write(cluster / 2, cluster);
        await layer.writeZeroes(0, layer.size);
        await layer.verify();
        await layer.writeZeroes(0, layer.size);
      },
    },
    {
      id: 'zero/last-cluster',
      because: 'a last cluster that the end of the disk cuts is whole: metadata can say it',
      run: async (layer, { cluster }) => {
        const start = lastCluster(layer.size, cluster);
        await layer.writeZeroes(start, layer.size - start);
        await layer.verify();
        await layer.write(layer.size - 1, 1);
        await layer.writeZeroes(layer.size - 1, 1);
      },
    },
    {
      id: 'zero/nothing',
      because: 'a range of no bytes changes nothing',
      run: async (layer) => {
        const { changes } = layer.file;
        for (const at of [0, 1, layer.size]) await layer.writeZeroes(at, 0);
        expectEqual(layer.file.changes, changes, 'changes of the file');
      },
    },
    {
      id: 'zero/absent-is-never-reported',
      because: 'a format without a zero status writes zeros as data, and says so',
      whenAbsent: 'zero',
      run: async (layer, { cluster }) => {
        await layer.write(0, cluster);
        await layer.writeZeroes(0, cluster * 2);
        for (const { offset, status } of await layer.extents())
          if (status === 'zero') fail(`zero at ${offset}`);
      },
    },
  ]),
  {
    id: 'zero/hides-the-backing-file',
    because: 'taken for unallocated, a zero would show old bytes from below after a commit',
    needs: ['zero', 'backing'],
    run: async (bed) => {
      const { cluster } = bed;
      const layer = await bed.layer({ backed: true });
      await layer.write(cluster * 2, cluster / 2);
      const start = lastCluster(layer.size, cluster);
      for (const [at, length] of [
        [0, cluster * 2],
        [start, layer.size - start],
      ] as const) {
        await layer.writeZeroes(at, length);
        for (const { offset, status } of await extentsOf(layer.image, rangeOf(at, length)))
          expectEqual(status, 'zero', `status at ${offset}`);
      }
      await layer.settle();
    },
  },
];
