import { type ImageCase, lastCluster, layerCases } from './cases.ts';

/** `copyFrom`: as `write`, from another file. */
export const copyCases: readonly ImageCase[] = layerCases([
  {
    id: 'copy/whole-clusters',
    because: 'a commit copies runs of clusters from file to file',
    run: async (layer, bed) => {
      const source = await bed.copySource(bed.cluster * 3);
      await layer.copyFrom(source, 0, 0, bed.cluster * 2);
      await layer.verify();
      await layer.copyFrom(source, bed.cluster, bed.cluster, bed.cluster);
    },
  },
  {
    id: 'copy/odd-offsets',
    because: 'host offset and guest offset need not be aligned, nor alike',
    run: async (layer, bed) => {
      const { cluster } = bed;
      const source = await bed.copySource(cluster * 3);
      for (const [from, at, length] of [
        [1, 0, 1],
        [513, cluster - 1, 2],
        [7, cluster + 511, cluster],
        [cluster - 1, lastCluster(layer.size, cluster) + 1, 10],
      ] as const) {
        await layer.copyFrom(source, from, at, length);
        await layer.verify();
      }
    },
  },
  {
    id: 'copy/to-the-end',
    because: 'the end of a disk may cut its last cluster, and nothing of it may get lost',
    run: async (layer, bed) => {
      const source = await bed.copySource(bed.cluster * 3);
      const start = lastCluster(layer.size, bed.cluster) - bed.cluster;
      await layer.copyFrom(source, 3, start, layer.size - start);
    },
  },
  {
    id: 'copy/past-the-end-of-the-source',
    because: 'the last cluster of a file may lie partly past its end, and reads as zeros there',
    run: async (layer, bed) => {
      const source = await bed.copySource(bed.cluster + 100);
      await layer.write(0, bed.cluster * 2);
      await layer.copyFrom(source, bed.cluster, 0, bed.cluster);
      await layer.copyFrom(source, bed.cluster * 4, bed.cluster + 1, 99);
    },
  },
]);
