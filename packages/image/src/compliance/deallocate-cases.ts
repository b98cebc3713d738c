import { assertSameBytes } from '@downfold/compliance';
import { type ImageCase, lastCluster, layerCases } from './cases.ts';
import { expectEqual, expectRefused } from './expect.ts';
import { rangeOf } from './layer.ts';

/** `deallocate`: the backing file shows again. */
export const deallocateCases: readonly ImageCase[] = layerCases([
  {
    id: 'deallocate/whole-units',
    because: 'a drained layer must show what lies below it',
    needs: ['deallocate'],
    run: async (layer, { cluster }) => {
      await layer.write(0, cluster * 2);
      await layer.writeZeroes(cluster, cluster);
      await layer.image.flush();
      await layer.deallocate(cluster, cluster);
      await layer.verify();
      await layer.deallocate(0, cluster);
      await layer.verify();
      await layer.deallocate(0, cluster * 2);
    },
  },
  {
    id: 'deallocate/parts-stay',
    because: 'a unit that is only partly in the range keeps its content',
    needs: ['deallocate'],
    run: async (layer, { cluster }) => {
      await layer.write(0, layer.size);
      await layer.deallocate(1, cluster - 1);
      await layer.verify();
      await layer.deallocate(cluster - 1, 2);
      await layer.verify();
      await layer.deallocate(cluster - 100, cluster + 300);
    },
  },
  {
    id: 'deallocate/last-unit',
    because: 'the last unit may be cut by the end of the disk, and is whole all the same',
    needs: ['deallocate'],
    run: async (layer, { cluster }) => {
      await layer.write(0, layer.size);
      await layer.deallocate(lastCluster(layer.size, cluster), layer.size % cluster || cluster);
    },
  },
  {
    id: 'deallocate/whole-disk',
    because: '`commit` without `-d` empties the top layer',
    needs: ['deallocate'],
    run: async (layer) => {
      await layer.write(0, layer.size);
      await layer.image.flush();
      await layer.deallocate(0, layer.size);
      await layer.verify();
      await layer.image.flush();
      await layer.write(1, layer.size - 2);
    },
  },
  {
    id: 'deallocate/absent',
    because:
      'a format that cannot must not pretend: the caller would take old bytes for the backing file',
    whenAbsent: 'deallocate',
    run: async (layer, { cluster }) => {
      await layer.write(0, cluster);
      await layer.image.flush();
      const bytes = await layer.file.bytes();
      await expectRefused(
        () => layer.image.deallocate(rangeOf(0, cluster)),
        'IMAGE_UNSUPPORTED',
        'deallocate',
      );
      assertSameBytes(await layer.file.bytes(), bytes, 'the file after a refusal');
    },
  },
  {
    id: 'deallocate/nothing',
    because: 'a range of no bytes changes nothing',
    needs: ['deallocate'],
    run: async (layer) => {
      await layer.write(0, layer.size);
      await layer.image.flush();
      const { changes } = layer.file;
      for (const at of [0, 1, layer.size]) await layer.deallocate(at, 0);
      expectEqual(layer.file.changes, changes, 'changes of the file');
    },
  },
]);
