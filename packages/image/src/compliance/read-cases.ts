import { assertSameBytes } from '@downfold/compliance';
import { guestOffset } from '@downfold/units';
import { type ImageCase, layerCases } from './cases.ts';
import { expectEqual, rejectionOf } from './expect.ts';
import { BACKING } from './test-bed.ts';

/** `read`: this layer's bytes, and `below` for what is unallocated. */
export const readCases: readonly ImageCase[] = layerCases([
  {
    id: 'read/new-image',
    because: 'a new image reads as what lies below it, or as zeros',
    run: (layer) => layer.verify(),
  },
  {
    id: 'read/any-range',
    because: 'guests read any sectors, the engine any runs',
    run: async (layer, { cluster }) => {
      await layer.write(cluster - 1, cluster);
      await layer.writeZeroes(cluster * 2, 512);
      for (const at of [0, 1, cluster - 2, cluster, cluster * 2 - 1, layer.size - 9])
        for (const length of [1, 9, 513, cluster + 1]) {
          const end = Math.min(layer.size, at + length);
          const target = new Uint8Array(end - at);
          await layer.image.read(guestOffset(at), target, layer.fill);
          assertSameBytes(target, layer.model.subarray(at, end), `bytes [${at}, ${end})`);
        }
    },
  },
  {
    id: 'read/only-the-target',
    because: 'targets are pieces of larger buffers',
    run: async (layer, { cluster }) => {
      await layer.write(cluster / 2, cluster);
      const buffer = new Uint8Array(cluster * 2 + 20).fill(0xa5);
      const target = buffer.subarray(10, 10 + cluster * 2);
      await layer.image.read(guestOffset(0), target, layer.fill);
      assertSameBytes(target, layer.model.subarray(0, cluster * 2), 'the target');
      const guards = [...buffer.subarray(0, 10), ...buffer.subarray(10 + cluster * 2)];
      expectEqual(
        guards,
        guards.map(() => 0xa5),
        'bytes around the target',
      );
    },
  },
  {
    id: 'read/old-bytes-of-the-target',
    because: 'buffers are used again: what is not filled shows another disk',
    run: async (layer, { cluster }) => {
      await layer.writeZeroes(0, cluster);
      const target = new Uint8Array(layer.size).fill(0xa5);
      await layer.image.read(guestOffset(0), target, layer.fill);
      assertSameBytes(target, layer.model, 'the disk');
    },
  },
  {
    id: 'read/never-writes',
    because: 'layers are read while others use them; a changed byte is a changed backing file',
    run: async (layer, { cluster }) => {
      await layer.write(cluster / 2, cluster);
      await layer.writeZeroes(0, 512);
      await layer.image.flush();
      const bytes = await layer.file.bytes();
      for (const mode of ['write', 'read'] as const) {
        await layer.reopen(mode);
        const { changes } = layer.file;
        await layer.view();
        await layer.extents();
        await layer.image.check();
        await layer.image.describe();
        await rejectionOf(() => layer.image.assertRoomFor(BACKING));
        expectEqual(layer.file.changes, changes, `changes by reading (opened for ${mode})`);
      }
      await layer.reopen('read');
      assertSameBytes(await layer.file.bytes(), bytes, 'the file');
    },
  },
]);
