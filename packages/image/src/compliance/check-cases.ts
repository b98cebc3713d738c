import { assertSameBytes } from '@downfold/compliance';
import { type ImageCase, layerCases } from './cases.ts';
import { expectEqual, fail } from './expect.ts';

/** `check` and `reclaimLeaks` on sound images; what crashes leave is in `crash-cases.ts`. */
export const checkCases: readonly ImageCase[] = layerCases([
  {
    id: 'check/counts',
    because: 'reports say how much of a disk is allocated',
    needs: ['check'],
    run: async (layer, { cluster }) => {
      const total = Math.ceil(layer.size / cluster);
      for (const clusters of [0, 1, 2]) {
        if (clusters > 0) await layer.write((clusters - 1) * cluster, cluster);
        const report = await layer.image.check();
        expectEqual(report.totalClusters, total, 'clusters of the disk');
        expectEqual(report.allocatedClusters, clusters, 'allocated clusters');
        expectEqual(report.compressedClusters, 0, 'compressed clusters');
        if (report.fragmentedClusters > clusters)
          fail(`${report.fragmentedClusters} of ${clusters} clusters are fragmented`);
      }
    },
  },
  {
    id: 'check/clean-at-any-time',
    because:
      'a check of an image that was written but not flushed must not report what is only waiting',
    run: async (layer, { cluster }) => {
      await layer.write(cluster / 2, cluster);
      const report = await layer.image.check();
      expectEqual([report.corruptions, report.leaks], [0, 0], 'corruptions and leaks');
      await layer.verify();
    },
  },
  {
    id: 'reclaim/nothing',
    because: 'a resumed job asks every image; without leaks nothing is freed, and nothing changes',
    run: async (layer, { cluster }) => {
      await layer.write(0, cluster);
      await layer.image.flush();
      await layer.reopen('write');
      const bytes = await layer.file.bytes();
      expectEqual(await layer.image.reclaimLeaks(), 0, 'clusters given back');
      assertSameBytes(await layer.file.bytes(), bytes, 'the file');
    },
  },
]);
