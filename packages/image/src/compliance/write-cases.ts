import { guestOffset } from '@downfold/units';
import { type ImageCase, lastCluster, layerCases } from './cases.ts';
import { expectEqual } from './expect.ts';

/** `write`: any bytes at any place, and `fill` for what a cluster lacks. */
export const writeCases: readonly ImageCase[] = layerCases([
  {
    id: 'write/odd-offsets',
    because:
      'guests and strategies write at any offset, inside, across and beside allocation units',
    run: async (layer, { cluster }) => {
      for (const [at, length] of [
        [0, 1],
        [cluster - 1, 2],
        [cluster + 511, 1],
        [cluster * 2 - 3, 7],
        [cluster * 2 + 513, 1021],
        [layer.size - 1, 1],
      ] as const) {
        await layer.write(at, length);
        await layer.verify();
      }
    },
  },
  {
    id: 'write/whole-clusters',
    because: 'a commit moves whole clusters, and what is whole needs nothing from below',
    run: async (layer, { cluster }) => {
      await layer.write(cluster, cluster);
      await layer.write(0, cluster);
      await layer.verify();
      await layer.write(0, cluster * 2);
    },
  },
  {
    id: 'write/whole-disk',
    because: 'a commit may replace all of base in one piece',
    run: async (layer) => {
      await layer.write(0, layer.size);
      await layer.write(0, layer.size);
    },
  },
  {
    id: 'write/across-clusters',
    because: 'both cut ends of a long write keep what they showed',
    run: async (layer, { cluster }) => {
      await layer.write(cluster / 2 + 1, cluster + 99);
      await layer.verify();
      await layer.write(cluster / 2 - 7, cluster + 512);
    },
  },
  {
    id: 'write/last-cluster',
    because: 'the end of a disk may cut its last cluster, and nothing of it may get lost',
    run: async (layer, { cluster }) => {
      const start = lastCluster(layer.size, cluster);
      await layer.write(start, layer.size - start);
      await layer.verify();
      await layer.write(layer.size - 5, 5);
    },
  },
  {
    id: 'write/part-of-last-cluster',
    because: '`fill` completes the last cluster as far as the disk goes, and is not asked beyond',
    run: async (layer, { cluster }) => {
      const start = lastCluster(layer.size, cluster);
      await layer.write(start + 3, 11);
    },
  },
  {
    id: 'write/twice',
    because: 'the newer bytes win, in place or not, and only they',
    run: async (layer, { cluster }) => {
      await layer.write(0, cluster + 100);
      await layer.image.flush();
      await layer.write(50, 100);
      await layer.write(cluster - 10, 20);
      await layer.write(100, 100);
    },
  },
  {
    id: 'write/after-zeroes',
    because: 'what was zero before a partial write is zero after it, whatever lies below',
    run: async (layer, { cluster }) => {
      await layer.writeZeroes(0, cluster * 2);
      await layer.write(cluster - 9, 18);
      await layer.verify();
    },
  },
  {
    id: 'write/after-deallocation',
    because: 'a partial write into a cluster that was given up is completed from below again',
    needs: ['deallocate'],
    run: async (layer, { cluster }) => {
      await layer.write(0, cluster * 2);
      await layer.deallocate(0, cluster * 2);
      await layer.verify();
      await layer.write(cluster - 9, 18);
    },
  },
  {
    id: 'write/source-is-free-afterwards',
    because: 'callers use their buffers again as soon as a write resolves',
    run: async (layer, { cluster }) => {
      const source = new Uint8Array(cluster + 100).fill(7);
      await layer.image.write(guestOffset(9), source, { fill: layer.fill });
      layer.model.fill(7, 9, 9 + source.length);
      source.fill(8);
    },
  },
  {
    id: 'write/nothing',
    because: 'a write of no bytes is none',
    run: async (layer) => {
      const { changes } = layer.file;
      for (const at of [0, 1, layer.size]) await layer.write(at, 0);
      expectEqual(layer.file.changes, changes, 'changes of the file');
    },
  },
]);
