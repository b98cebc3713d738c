import { assertSameBytes } from '@downfold/compliance';
import type { Storage } from '@downfold/storage';
import { byteLength, type GuestRange, guestOffset, hostOffset } from '@downfold/units';
import type { ImageErrorCode } from '../errors.ts';
import type { Image, ImageAbility } from '../image.ts';
import { type ImageCase, layerCases } from './cases.ts';
import { expectEqual, expectRefused, rejectionOf } from './expect.ts';
import { type Layer, rangeOf } from './layer.ts';
import { BACKING } from './test-bed.ts';

/** A member, called; with `range` where it takes one. */
interface Call {
  readonly name: string;
  readonly needs?: ImageAbility;
  run(image: Image, options: CallOptions): Promise<unknown>;
}

interface CallOptions {
  readonly range: GuestRange;
  readonly source: Storage;
  readonly signal?: AbortSignal | undefined;
}

const ranged: readonly Call[] = [
  {
    name: 'extents',
    run: async (image, { range, signal }) => {
      for await (const _ of image.extents(range, { signal }));
    },
  },
  {
    name: 'read',
    run: (image, { range, signal }) =>
      image.read(range.offset, new Uint8Array(range.length), null, { signal }),
  },
];

const rangedChanges: readonly Call[] = [
  {
    name: 'write',
    run: (image, { range, signal }) =>
      image.write(range.offset, new Uint8Array(range.length).fill(1), { fill: null, signal }),
  },
  {
    name: 'copyFrom',
    run: (image, { range, source, signal }) =>
      image.copyFrom(
        [{ source, from: hostOffset(0), offset: range.offset, length: range.length }],
        { fill: null, signal },
      ),
  },
  {
    name: 'writeZeroes',
    run: (image, { range, signal }) => image.writeZeroes(range, { fill: null, signal }),
  },
  {
    name: 'deallocate',
    needs: 'deallocate',
    run: (image, { range, signal }) => image.deallocate(range, { signal }),
  },
];

const otherChanges: readonly Call[] = [
  {
    name: 'resize',
    run: (image, { signal }) =>
      image.resize(byteLength(image.geometry.virtualSize + 4096), { fill: null, signal }),
  },
  { name: 'reclaimLeaks', run: (image, { signal }) => image.reclaimLeaks({ signal }) },
];

const durableChanges: readonly Call[] = [
  { name: 'setBacking', needs: 'backing', run: (image) => image.setBacking(BACKING) },
  {
    name: 'setMark',
    needs: 'mark',
    run: (image) => image.setMark({ state: 'invalid', job: 'j', date: '2024-02-29T00:00:00Z' }),
  },
  { name: 'flush', run: (image) => image.flush() },
];

const check: Call = { name: 'check', run: (image, { signal }) => image.check({ signal }) };
const assertRoomFor: Call = {
  name: 'assertRoomFor',
  needs: 'backing',
  run: (image) => image.assertRoomFor(BACKING),
};

const allChanges = [...rangedChanges, ...otherChanges, ...durableChanges];

/** What every member refuses: a closed image, a read-only one, what lies outside the disk, an aborted signal. */
export const refusalCases: readonly ImageCase[] = layerCases([
  {
    id: 'refuse/closed',
    because: 'a closed image has given its file away',
    run: async (layer, bed) => {
      const source = (await bed.copySource(512)).storage;
      const { image } = layer;
      await image[Symbol.asyncDispose]();
      const { changes } = layer.file;
      const calls = [...ranged, ...allChanges, check, assertRoomFor];
      await expectAllRefused(image, bed.abilities, calls, rangeOf(0, 512), source, 'IMAGE_CLOSED');
      expectEqual(layer.file.changes, changes, 'changes of the file');
      await layer.reopen('read');
    },
  },
  {
    id: 'refuse/read-only',
    because: 'layers are opened for reading because others use them',
    run: async (layer, bed) => {
      await layer.write(0, bed.cluster);
      await layer.image.flush();
      const source = (await bed.copySource(512)).storage;
      await layer.reopen('read');
      const { changes } = layer.file;
      const range = rangeOf(0, 512);
      await expectAllRefused(
        layer.image,
        bed.abilities,
        allChanges,
        range,
        source,
        'IMAGE_READ_ONLY',
      );
      expectEqual(layer.file.changes, changes, 'changes of the file');
    },
  },
  {
    id: 'refuse/outside',
    because: 'what lies outside the disk belongs to nobody; a plan that reaches there is wrong',
    run: async (layer, bed) => {
      const source = (await bed.copySource(512)).storage;
      await layer.write(layer.size - 512, 512);
      await layer.image.flush();
      const bytes = await layer.file.bytes();
      const calls = [...ranged, ...rangedChanges];
      for (const range of [
        rangeOf(layer.size - 1, 2),
        rangeOf(layer.size, 1),
        rangeOf(0, layer.size + 1),
        rangeOf(layer.size * 2, bed.cluster),
      ])
        await expectAllRefused(layer.image, bed.abilities, calls, range, source, 'IMAGE_RANGE');
      assertSameBytes(await layer.file.bytes(), bytes, 'the file after refusals');
    },
  },
  {
    id: 'abort/before',
    because: 'a cancelled job must not start anything',
    run: async (layer, bed) => {
      const source = (await bed.copySource(512)).storage;
      await layer.write(0, bed.cluster);
      await layer.image.flush();
      const { changes } = layer.file;
      const signal = AbortSignal.abort(new Error('stop'));
      for (const { name, needs, run } of [...ranged, ...rangedChanges, ...otherChanges, check]) {
        if (needs !== undefined && !bed.abilities.has(needs)) continue;
        const options = { range: rangeOf(0, 512), source, signal };
        expectEqual(await rejectionOf(() => run(layer.image, options)), signal.reason, name);
      }
      expectEqual(layer.file.changes, changes, 'changes of the file');
    },
  },
  {
    id: 'abort/during',
    because:
      'a job is cancelled while it copies: the image is sound, and only the range that was written may have changed',
    run: async (layer, bed) => {
      const { cluster } = bed;
      await layer.write(0, cluster * 2);
      await layer.image.flush();
      const source = await bed.copySource(cluster * 2);
      const controller = new AbortController();
      const at = cluster / 2;
      const copying = layer.image.copyFrom(
        [
          {
            source: source.storage,
            from: hostOffset(0),
            offset: guestOffset(at),
            length: byteLength(cluster),
          },
        ],
        { fill: layer.fill, signal: controller.signal },
      );
      controller.abort(new Error('stop'));
      const error = await rejectionOf(() => copying);
      if (error === null) await layer.image.flush();
      else {
        expectEqual(error, controller.signal.reason, 'rejection');
        await layer.reopen('write');
        await layer.image.reclaimLeaks();
      }
      await expectOldOrNew(layer, at, source.bytes.subarray(0, cluster));
    },
  },
]);

async function expectAllRefused(
  image: Image,
  abilities: ReadonlySet<ImageAbility>,
  calls: readonly Call[],
  range: GuestRange,
  source: Storage,
  code: ImageErrorCode,
): Promise<void> {
  for (const { name, needs, run } of calls)
    if (needs === undefined || abilities.has(needs))
      await expectRefused(() => run(image, { range, source }), code, name);
}

/** Each byte from `at` on is the old one or that of `source`; the model follows. */
async function expectOldOrNew(layer: Layer, at: number, source: Uint8Array): Promise<void> {
  const view = await layer.view();
  const mixed = layer.model.slice();
  for (let index = 0; index < source.length; index++)
    if (view[at + index] === source[index]) mixed[at + index] = source[index] as number;
  assertSameBytes(view, mixed, 'the disk after an aborted copy');
  layer.model = mixed;
}
