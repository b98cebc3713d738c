import { assertSameBytes } from '@downfold/compliance';
import type { BackingReference, ImageMark } from '../image.ts';
import type { ImageCase } from './cases.ts';
import { expectEqual, expectRefused, fail, rejectionOf } from './expect.ts';
import { expectSound } from './layer.ts';
import { BACKING } from './test-bed.ts';

const INVALID: ImageMark = {
  state: 'invalid',
  job: '0f8b9c1e-5d0a-4a66-9a37-2f6f1d9f3c11',
  date: '2024-02-29T23:59:59Z',
};
const SUPERSEDED: ImageMark = { ...INVALID, state: 'superseded', job: 'job-2' };

/** `setMark`: the image itself says that it represents no point in time. */
export const markCases: readonly ImageCase[] = [
  {
    id: 'mark/round-trip',
    because: 'an invalid image is refused by whoever opens it next',
    needs: ['mark'],
    run: async (bed) => {
      const layer = await bed.layer();
      await layer.write(bed.cluster / 2, bed.cluster);
      await layer.image.flush();
      for (const mark of [INVALID, SUPERSEDED, null, INVALID, null]) {
        const { fingerprint } = layer.image;
        await layer.image.setMark(mark);
        expectEqual(layer.image.mark, mark, 'mark');
        if (layer.image.fingerprint === fingerprint) fail('the fingerprint did not change');
        await layer.reopen('write');
        expectEqual(layer.image.mark, mark, 'mark, opened again');
        await expectSound(layer.image);
      }
      await layer.settle();
    },
  },
  {
    id: 'mark/beside-a-backing-file',
    because: 'a mark and a relink share the header, and neither may cost the other',
    needs: ['mark', 'backing'],
    run: async (bed) => {
      const layer = await bed.layer({ backed: true });
      await layer.image.setMark(INVALID);
      expectEqual(layer.image.backing, BACKING, 'backing');
      const other: BackingReference = { name: '../base of it.img', format: 'qcow2' };
      await layer.image.setBacking(other);
      await layer.reopen('write');
      expectEqual([layer.image.backing, layer.image.mark], [other, INVALID], 'backing and mark');
      await layer.image.setMark(null);
      await layer.reopen('write');
      expectEqual([layer.image.backing, layer.image.mark], [other, null], 'backing and mark');
      await layer.settle();
    },
  },
  {
    id: 'mark/old-or-new',
    because: 'marks are durable when they resolve, and never half there',
    needs: ['mark'],
    run: async (bed, { random }) => {
      const layer = await bed.layer();
      await layer.file.startLog();
      const steps = [{ logged: 0, mark: layer.image.mark }];
      for (const mark of [INVALID, SUPERSEDED, null, SUPERSEDED]) {
        await layer.image.setMark(mark);
        steps.push({ logged: layer.file.logged, mark });
      }
      for (const { at, kept } of layer.file.crashes(random)) {
        await using image = await layer.openAfter(layer.file.after(kept));
        const last = steps.findLastIndex(({ logged }) => logged <= at);
        const legal = steps.slice(last, last + 2).map(({ mark }) => JSON.stringify(mark));
        const found = JSON.stringify(image.mark);
        if (!legal.includes(found)) fail(`mark ${found} after a crash, not one of ${legal}`);
      }
    },
  },
  {
    id: 'mark/no-room',
    because: 'a mark that finds no room must leave the image as it was, not half marked',
    needs: ['mark'],
    run: async (bed) => {
      const layer = await bed.layer();
      const bytes = await layer.file.bytes();
      const mark: ImageMark = { ...INVALID, job: 'j'.repeat(100_000) };
      const refused = (await rejectionOf(() => layer.image.setMark(mark))) !== null;
      if (refused) {
        await expectRefused(() => layer.image.setMark(mark), 'IMAGE_NO_ROOM', 'a long mark');
        assertSameBytes(await layer.file.bytes(), bytes, 'the file after a refusal');
      }
      await layer.reopen('write');
      expectEqual(layer.image.mark, refused ? null : mark, 'mark, opened again');
      await layer.settle();
    },
  },
  {
    id: 'mark/absent',
    because: 'an image that cannot be marked would be taken for valid',
    whenAbsent: 'mark',
    run: async (bed) => {
      const layer = await bed.layer();
      const { changes } = layer.file;
      await expectRefused(() => layer.image.setMark(INVALID), 'IMAGE_UNSUPPORTED', 'a mark');
      expectEqual([layer.image.mark, layer.file.changes], [null, changes], 'mark and changes');
      await layer.settle();
    },
  },
];
