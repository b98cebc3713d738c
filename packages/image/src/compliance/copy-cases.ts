import { type ImageCase, lastCluster, layerCases } from './cases.ts';
import type { CopiedPart, Layer } from './layer.ts';

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
  {
    id: 'copy/many-pieces',
    because:
      'scattered clusters are copied in one call: next to one another, apart, and in any order',
    run: async (layer, bed) => {
      const { cluster } = bed;
      const source = await bed.copySource(cluster * 4);
      await growTo(layer, cluster * 5);
      const parts = [0, 2, 3, 4].map((index, turn) => ({
        from: cluster * (3 - turn),
        at: cluster * index,
        length: cluster,
      }));
      await layer.copyPieces(source, parts);
      await layer.verify();
      await layer.writeZeroes(cluster, cluster * 2);
      await layer.copyPieces(source, parts.map((part) => ({ ...part, from: 1 })).toReversed());
      await layer.copyPieces(source, []);
    },
  },
  {
    id: 'copy/many-pieces-of-a-cluster',
    because:
      'pieces of one cluster go to one place, whatever lies between them and whichever comes first',
    run: async (layer, bed) => {
      const { cluster } = bed;
      const source = await bed.copySource(cluster * 2);
      await growTo(layer, cluster * 5);
      const quarter = cluster / 4;
      const quarters = (index: number, first: number): CopiedPart[] =>
        [0, 1, 3].map((place) => ({
          from: quarter * place + first,
          at: cluster * index + quarter * place,
          length: quarter,
        }));
      await layer.copyPieces(source, quarters(0, 0));
      await layer.verify();
      await layer.copyPieces(source, quarters(1, 3).toReversed());
      await layer.verify();
      const [a, b, c] = quarters(3, 4) as [CopiedPart, CopiedPart, CopiedPart];
      const [d, e, f] = quarters(4, 5) as [CopiedPart, CopiedPart, CopiedPart];
      await layer.copyPieces(source, [a, d, b, { ...e, length: 100 }, c, f]);
      await layer.verify();
      const odd = { from: 9, at: cluster * 4 - 7, length: 11 };
      await layer.copyPieces(source, [...quarters(2, 1), odd, ...quarters(0, 2)]);
    },
  },
]);

/** Disks of large clusters have only a few of them. */
async function growTo(layer: Layer, size: number): Promise<void> {
  if (layer.size < size) await layer.resize(size);
}
