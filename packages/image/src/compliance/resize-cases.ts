import { assertSameBytes } from '@downfold/compliance';
import { byteLength } from '@downfold/units';
import { type ImageCase, lastCluster, layerCases } from './cases.ts';
import { expectEqual, expectRefused, fail } from './expect.ts';

/** `resize`: grows; the new area reads as zeros. */
export const resizeCases: readonly ImageCase[] = [
  ...layerCases([
    {
      id: 'resize/inside-the-last-cluster',
      because: 'a cluster that the old size cut must not show more than it had',
      needs: ['grow'],
      run: async (layer, { cluster }) => {
        const start = lastCluster(layer.size, cluster);
        await layer.write(start, layer.size - start);
        await layer.resize(layer.size + 512);
        await layer.verify();
        await layer.resize(start + cluster * 2);
      },
    },
    {
      id: 'resize/cut-cluster-partly-written',
      because: '`fill` completes the old part of the last cluster, and nothing of the new one',
      needs: ['grow'],
      run: async (layer) => {
        await layer.write(layer.size - 3, 3);
        await layer.resize(layer.size + 512);
      },
    },
    {
      id: 'resize/untouched',
      because: 'a new area over a longer backing file is explicit zeros, or old bytes show',
      needs: ['grow'],
      run: async (layer, { cluster }) => {
        await layer.resize(layer.size + cluster * 9 + 512);
        await layer.verify();
        await layer.write(layer.size - cluster - 5, 9);
      },
    },
    {
      id: 'resize/after-zeroes',
      because: 'zeros at the old end stay zeros, and the new ones join them',
      needs: ['grow'],
      run: async (layer, { cluster }) => {
        const start = lastCluster(layer.size, cluster);
        await layer.writeZeroes(start, layer.size - start);
        await layer.resize(layer.size + cluster * 3);
      },
    },
    {
      id: 'resize/after-deallocation',
      because: 'a cluster that was given up must not come back with its old bytes',
      needs: ['deallocate'],
      run: async (layer, { cluster }) => {
        await layer.write(0, layer.size);
        await layer.deallocate(lastCluster(layer.size, cluster), layer.size % cluster || cluster);
        await layer.resize(layer.size + cluster);
      },
    },
    {
      id: 'resize/many-tables',
      because: 'the tables grow with the disk',
      needs: ['grow'],
      run: async (layer, { cluster }) => {
        const more = 140 * Math.min(cluster, 4096);
        await layer.write(0, cluster);
        await layer.resize(layer.size + more);
        await layer.verify();
        await layer.write(layer.size - more / 2, more / 4 + 1);
        await layer.resize(layer.size + more);
      },
    },
    {
      id: 'resize/same-size',
      because: 'a resumed job asks again for what is done',
      run: async (layer) => {
        await layer.write(0, 1000);
        await layer.resize(layer.size);
      },
    },
    {
      id: 'resize/shrink-is-refused',
      because: 'a commit never shrinks base',
      run: async (layer) => {
        await layer.write(0, layer.size);
        await layer.image.flush();
        const bytes = await layer.file.bytes();
        for (const size of [layer.size - 512, 0])
          await expectRefused(
            () => layer.image.resize(byteLength(size), { fill: layer.fill }),
            'IMAGE_UNSUPPORTED',
            `resize to ${size}`,
          );
        assertSameBytes(await layer.file.bytes(), bytes, 'the file after a refusal');
      },
    },
    {
      id: 'resize/durable',
      because: 'the engine grows base before it copies, and does not flush in between',
      needs: ['grow'],
      run: async (layer, { cluster }) => {
        await layer.write(0, cluster);
        await layer.image.flush();
        await layer.file.startLog();
        await layer.resize(layer.size + cluster);
        await using image = await layer.openAfter(layer.file.durable());
        assertSameBytes(await layer.view(image), layer.model, 'the disk after a crash');
      },
    },
  ]),
  {
    id: 'resize/odd-size',
    because: 'a size that is no whole number of sectors may be rounded up, not down, and stays',
    needs: ['grow'],
    run: async (bed) => {
      const layer = await bed.layer();
      await layer.image.resize(byteLength(bed.size + 1), { fill: null });
      const { size } = layer;
      if (size <= bed.size || size > bed.size + 512)
        fail(`asked for ${bed.size + 1} bytes, got ${size}`);
      await layer.reopen('read');
      expectEqual(layer.size, size, 'virtual size, opened again');
    },
  },
  {
    id: 'resize/short-backing-file',
    because: 'where the backing file ends before the disk, nothing of it can show in the new area',
    needs: ['backing', 'grow'],
    run: async (bed) => {
      const { cluster } = bed;
      for (const belowBytes of [0, bed.size - cluster - 100, bed.size]) {
        const layer = await bed.layer({ backed: true, belowBytes });
        await layer.write(cluster / 2, 100);
        await layer.resize(layer.size + cluster * 3);
        await layer.verify();
        await layer.write(layer.size - 100, 100);
        await layer.settle();
        expectEqual(layer.image.backing?.name, 'below.img', 'the backing name');
      }
    },
  },
  {
    id: 'resize/growth-absent',
    because: 'what grew and shows noise after a crash is no base that a job may make larger',
    whenAbsent: 'grow',
    run: async (bed) => {
      const { image, file, size } = await bed.layer();
      const bytes = await file.bytes();
      await expectRefused(
        () => image.resize(byteLength(size + 512), { fill: null }),
        'IMAGE_UNSUPPORTED',
        'growth',
      );
      assertSameBytes(await file.bytes(), bytes, 'the file after a refusal');
    },
  },
];
