import { assertSameBytes } from '@downfold/compliance';
import type { BackingReference, Image } from '../image.ts';
import type { ImageCase } from './cases.ts';
import { expectEqual, expectRefused, fail, rejectionOf } from './expect.ts';
import { expectSound } from './layer.ts';
import { BACKING } from './test-bed.ts';

const REFERENCES: readonly BackingReference[] = [
  { name: 'b', format: 'raw' },
  { name: '../other disks/base image.qcow2', format: 'qcow2' },
  { name: '/srv/ünïcode/磁盘.raw', format: 'raw' },
  { name: 'json:{"driver":"raw"}', format: null },
  { name: `${'long/'.repeat(20)}name`, format: 'qcow2' },
  { name: 'below.img', format: null },
];

/** Bytes of names that may be too long for the header. */
const NAME_LENGTHS: readonly number[] = [200, 400, 900, 1023, 1024, 5000, 70_000];

/** `setBacking`, `assertRoomFor`: one atomic, durable change of the reference. */
export const backingCases: readonly ImageCase[] = [
  {
    id: 'backing/round-trip',
    because: 'a relink writes names as given: relative, long, in any script',
    needs: ['backing'],
    run: async (bed) => {
      const layer = await bed.layer({ backed: true });
      await layer.write(bed.cluster / 2, bed.cluster);
      await layer.image.flush();
      for (const reference of [...REFERENCES, null, ...REFERENCES.toReversed(), BACKING]) {
        const { fingerprint } = layer.image;
        await layer.image.setBacking(reference);
        expectEqual(layer.image.backing, reference, 'backing');
        await layer.reopen('write');
        expectEqual(layer.image.backing, reference, 'backing, opened again');
        if (layer.image.fingerprint === fingerprint) fail('the fingerprint did not change');
        await expectSound(layer.image);
      }
      await layer.settle();
    },
  },
  {
    id: 'backing/first-and-last',
    because: 'an image without a backing file can be given one, and lose it again',
    needs: ['backing'],
    run: async (bed) => {
      const layer = await bed.layer();
      await layer.write(1, bed.cluster);
      await layer.image.flush();
      await layer.image.setBacking(BACKING);
      await layer.reopen('write');
      expectEqual(layer.image.backing, BACKING, 'backing');
      await layer.image.setBacking(null);
      await layer.reopen('write');
      expectEqual(layer.image.backing, null, 'backing');
      await layer.settle();
    },
  },
  {
    id: 'backing/durable',
    because: 'the engine deletes what nothing names any more',
    needs: ['backing'],
    run: async (bed) => {
      const layer = await bed.layer({ backed: true });
      await layer.file.startLog();
      for (const reference of [...REFERENCES, null]) {
        await layer.image.setBacking(reference);
        await using image = await layer.openAfter(layer.file.durable());
        expectEqual(image.backing, reference, 'backing after a crash');
      }
    },
  },
  {
    id: 'backing/old-or-new',
    because:
      'a torn reference loses the disk: after a crash the complete old or the complete new one is there',
    needs: ['backing'],
    run: async (bed, { random }) => {
      const layer = await bed.layer({ backed: true });
      await layer.write(0, bed.cluster);
      await layer.image.flush();
      await layer.file.startLog();
      const steps: { logged: number; backing: BackingReference | null }[] = [];
      const note = () => steps.push({ logged: layer.file.logged, backing: layer.image.backing });
      note();
      for (const reference of [...REFERENCES, null, BACKING]) {
        await layer.image.setBacking(reference);
        note();
      }
      for (const { at, kept } of layer.file.crashes(random)) {
        await using image = await layer.openAfter(layer.file.after(kept));
        const last = steps.findLastIndex(({ logged }) => logged <= at);
        const legal = steps.slice(last, last + 2).map(({ backing }) => JSON.stringify(backing));
        const found = JSON.stringify(image.backing);
        if (!legal.includes(found)) fail(`backing ${found} after a crash, not one of ${legal}`);
        assertSameBytes(await layer.view(image), layer.model, 'the disk after a crash');
      }
    },
  },
  {
    id: 'backing/room',
    because:
      'the engine asks before it starts whether the last step will have room; the answer holds, and asking writes nothing',
    needs: ['backing'],
    run: async (bed) => {
      for (const length of NAME_LENGTHS) {
        const layer = await bed.layer({ backed: true });
        await layer.file.startLog();
        const reference = { name: 'n'.repeat(length), format: 'raw' };
        const bytes = await layer.file.bytes();
        const asking = await rejectionOf(() => layer.image.assertRoomFor(reference));
        assertSameBytes(await layer.file.bytes(), bytes, 'the file after assertRoomFor');
        expectEqual(layer.file.logged, 0, 'changes by assertRoomFor');
        if (asking === null) await layer.image.setBacking(reference);
        else await expectNoRoom(layer.image, reference);
        const expected = asking === null ? reference : BACKING;
        if (asking !== null)
          assertSameBytes(await layer.file.bytes(), bytes, 'the file after a refusal');
        await layer.reopen('write');
        expectEqual(layer.image.backing, expected, `backing (name of ${length} bytes)`);
        await expectSound(layer.image);
      }
    },
  },
  {
    id: 'backing/absent',
    because: 'a format without backing files must not pretend that a relink happened',
    whenAbsent: 'backing',
    run: async (bed) => {
      const layer = await bed.layer();
      const { changes } = layer.file;
      for (const attempt of [
        () => layer.image.setBacking(BACKING),
        () => layer.image.assertRoomFor(BACKING),
      ])
        await expectRefused(attempt, 'IMAGE_UNSUPPORTED', 'a backing file');
      expectEqual(layer.file.changes, changes, 'changes of the file');
      expectEqual(layer.image.backing, null, 'backing');
      await layer.settle();
    },
  },
];

async function expectNoRoom(image: Image, reference: BackingReference): Promise<void> {
  for (const attempt of [() => image.assertRoomFor(reference), () => image.setBacking(reference)])
    await expectRefused(attempt, 'IMAGE_NO_ROOM', `a name of ${reference.name.length} bytes`);
}
