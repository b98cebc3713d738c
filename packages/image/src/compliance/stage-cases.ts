import { assertSameBytes, type CaseContext } from '@downfold/compliance';
import type { Storage } from '@downfold/storage';
import { byteLength, guestOffset, hostOffset } from '@downfold/units';
import type { Image } from '../image.ts';
import type { StageOptions, Staging, StagingToken } from '../staging.ts';
import { type ImageCase, type LayerCase, layerCases } from './cases.ts';
import { fillContent } from './content.ts';
import { expectEqual, expectRefused, fail, rejectionOf } from './expect.ts';
import { expectSound, type Layer, rangeOf } from './layer.ts';
import type { ImageTestBed } from './test-bed.ts';

/** How many of the crashes are recovered from. */
const RECOVERED = 0.3;

const PLAIN = { keepUndo: null } as const;

const staged: readonly LayerCase[] = [
  {
    id: 'stage/aside',
    because:
      'until it is published nobody sees a staging, and a staged commit can be abandoned as if it had never begun',
    run: async (layer, bed) => {
      await prepare(layer, bed);
      const staging = await stage(layer, layer.size);
      const model = await changeStaged(staging, layer, bed);
      await expectShows(staging, layer, model);
      await layer.verify();
      await staging.flush();
      await expectShows(staging, layer, model);
      await layer.verify();
      await using image = await layer.openAfter(layer.file.durable());
      assertSameBytes(await layer.view(image), layer.model, 'the disk after a crash');
      await staging.discard();
      await layer.verify();
    },
  },
  {
    id: 'stage/publish',
    because:
      'a published staging is the image, at once and after a crash, and holds nothing else any more',
    run: async (layer, bed) => {
      await prepare(layer, bed);
      const staging = await stage(layer, layer.size);
      layer.model = await changeStaged(staging, layer, bed);
      await staging.publish(PLAIN);
      await using image = await layer.openAfter(layer.file.durable());
      assertSameBytes(await layer.view(image), layer.model, 'the disk after a crash');
      await expectSound(image);
      await using found = await reopened(layer, bed);
      const again = await stageOn(found, layer, layer.size, staging.token);
      expectEqual(again.published, true, 'published, to who comes with the token');
      await again.publish(PLAIN);
      assertSameBytes(await layer.view(found), layer.model, 'the disk, published twice');
      await layer.verify();
      await layer.write(bed.cluster - 3, 9);
    },
  },
  {
    id: 'stage/larger',
    because:
      'base grows to the size of top with the publish, and not before; what lies below must not show in the new area',
    run: async (layer, bed) => {
      await prepare(layer, bed);
      const size = layer.size + bed.cluster * 3 + 512;
      const given = await stage(layer, size);
      await given.flush();
      expectEqual(layer.size, bed.size, 'virtual size before the publish');
      await given.discard();
      expectEqual(layer.size, bed.size, 'virtual size after a discard');
      const staging = await stage(layer, size);
      const model = await changeStaged(staging, layer, bed, size);
      await expectShows(staging, layer, model);
      await staging.publish(PLAIN);
      expectEqual(layer.size, size, 'virtual size after the publish');
      layer.model = model;
    },
  },
  {
    id: 'stage/undo',
    because:
      'what the image showed may be kept as a snapshot; the image itself is published all the same',
    run: async (layer, bed) => {
      await prepare(layer, bed);
      const staging = await stage(layer, layer.size);
      const model = await changeStaged(staging, layer, bed);
      const keepUndo = { name: 'before', date: '2024-02-29T12:00:00Z' };
      const refusal = await rejectionOf(() => staging.publish({ keepUndo }));
      if (refusal === null) layer.model = model;
      else await staging.discard();
    },
  },
  {
    id: 'stage/image-is-frozen',
    because: 'a write to the image while it is staged would be lost, or seen in the staging',
    run: async (layer, bed) => {
      await prepare(layer, bed);
      const staging = await stage(layer, layer.size);
      const { changes } = layer.file;
      const options = { fill: layer.fill };
      for (const attempt of [
        () => layer.image.write(guestOffset(1), new Uint8Array(9), options),
        () => layer.image.writeZeroes(rangeOf(0, bed.cluster), options),
        () => layer.image.deallocate(rangeOf(0, bed.cluster)),
        () => layer.image.resize(byteLength(layer.size + 512), options),
        () => stage(layer, layer.size),
      ])
        if ((await rejectionOf(attempt)) === null) fail('the image changed while it was staged');
      expectEqual(layer.file.changes, changes, 'changes of the file');
      await layer.verify();
      await staging.discard();
      await layer.write(1, 9);
    },
  },
  {
    id: 'stage/another-process',
    because: 'a job that was killed goes on from the token in its journal, with what was flushed',
    run: async (layer, bed) => {
      await prepare(layer, bed);
      const staging = await stage(layer, layer.size);
      const { token } = staging;
      const model = await changeStaged(staging, layer, bed);
      await staging.flush();
      expectEqual(staging.token, token, 'the token after changes');
      const journal = JSON.parse(JSON.stringify(token)) as StagingToken;
      await using image = await reopened(layer, bed);
      await image.reclaimLeaks({ keep: journal });
      const again = await stageOn(image, layer, layer.size, journal);
      expectEqual([again.published, again.token], [false, token], 'published and token');
      await expectShows(again, layer, model);
      const source = new Uint8Array(100).fill(7);
      await again.write(guestOffset(50), source, { fill: layer.fill });
      model.set(source, 50);
      await again.publish(PLAIN);
      assertSameBytes(await layer.view(image), model, 'the disk after the publish');
      await expectSound(image);
      await staging.discard();
    },
  },
  {
    id: 'stage/abandoned',
    because: 'without its token a staging is leaks, and goes with them',
    run: async (layer, bed) => {
      await prepare(layer, bed);
      const staging = await stage(layer, layer.size);
      await changeStaged(staging, layer, bed);
      await staging.flush();
      await using image = await reopened(layer, bed);
      await image.reclaimLeaks();
      assertSameBytes(await layer.view(image), layer.model, 'the disk');
      await expectSound(image);
      await staging.discard();
    },
  },
  {
    id: 'stage/old-or-new',
    because:
      'one sector publishes: after a crash the disk is what it was, or what was staged, and a token that was written down still leads on',
    run: async (layer, bed, context) => {
      await prepare(layer, bed);
      const old = layer.model;
      const staging = await stage(layer, layer.size);
      const model = await changeStaged(staging, layer, bed);
      await staging.flush();
      const known = layer.file.logged;
      await staging.publish(PLAIN);
      layer.model = model;
      await expectOldOrNew(layer, bed, context, { old, model, known, token: staging.token });
    },
  },
];

/** `stage`: a second mapping, written aside and published by one sector. */
export const stageCases: readonly ImageCase[] = [
  ...layerCases(staged.map((item) => ({ ...item, needs: ['stage'] }))),
  ...layerCases([
    {
      id: 'stage/absent',
      because: 'a commit that was to be staged must not happen in place',
      whenAbsent: 'stage',
      run: async (layer) => {
        const { changes } = layer.file;
        await expectRefused(() => stage(layer, layer.size), 'IMAGE_UNSUPPORTED', 'stage');
        expectEqual(layer.file.changes, changes, 'changes of the file');
      },
    },
  ]),
];

/** Something in the image, durable, and the log begun. */
async function prepare(layer: Layer, { cluster }: ImageTestBed): Promise<void> {
  await layer.write(0, cluster + 9);
  await layer.writeZeroes(cluster, cluster / 2);
  await layer.write(layer.size - 9, 9);
  await layer.image.flush();
  await layer.file.startLog();
}

function stage(layer: Layer, size: number): Promise<Staging> {
  return stageOn(layer.image, layer, size, null);
}

function stageOn(
  image: Image,
  layer: Layer,
  size: number,
  from: StageOptions['from'],
): Promise<Staging> {
  return image.stage({ virtualSize: byteLength(size), from, fill: layer.fill });
}

/** Writes, zeroes and copies aside. Resolves with what the staging must show: `size` bytes. */
async function changeStaged(
  staging: Staging,
  layer: Layer,
  bed: ImageTestBed,
  size: number = layer.size,
): Promise<Uint8Array> {
  const { cluster } = bed;
  const model = new Uint8Array(size);
  model.set(layer.model);
  const options = { fill: layer.fill };
  const source = new Uint8Array(cluster);
  fillContent(source, 0, 70);
  await staging.write(guestOffset(5), source, options);
  model.set(source, 5);
  await staging.writeZeroes(rangeOf(cluster + 100, cluster), options);
  model.fill(0, cluster + 100, cluster * 2 + 100);
  const other = await bed.copySource(200);
  const at = size - 100;
  await staging.copyFrom(
    [
      {
        source: other.storage,
        from: hostOffset(3),
        offset: guestOffset(at),
        length: byteLength(100),
      },
    ],
    options,
  );
  model.set(other.bytes.subarray(3, 103), at);
  return model;
}

async function expectShows(staging: Staging, layer: Layer, model: Uint8Array): Promise<void> {
  const view = new Uint8Array(model.length).fill(0xa5);
  await staging.read(guestOffset(0), view, layer.fill);
  assertSameBytes(view, model, 'the staging');
}

/** The image as a process finds it after a crash, for writing. */
async function reopened(
  layer: Layer,
  bed: ImageTestBed,
  storage: Storage = layer.file.durable(),
): Promise<Image> {
  const file = await layer.file.restored(storage);
  return bed.format.open(await file.open(), { mode: 'write' });
}

/** What a publish leads from and to. */
interface Publish {
  readonly old: Uint8Array;
  readonly model: Uint8Array;
  readonly token: StagingToken;
  /** Length of the log when the token was flushed. */
  readonly known: number;
}

/** After a crash at any moment one of the two disks is there, whole; from the token on the new one is reached. */
async function expectOldOrNew(
  layer: Layer,
  bed: ImageTestBed,
  { random }: CaseContext,
  { old, model, token, known }: Publish,
): Promise<void> {
  for (const { at, kept } of layer.file.crashes(random)) {
    const storage = layer.file.after(kept);
    await using image = await layer.openAfter(storage);
    const view = await layer.view(image);
    if (Buffer.compare(view, old) !== 0) assertSameBytes(view, model, `after a crash at ${at}`);
    const { corruptions } = await image.check();
    expectEqual(corruptions, 0, `corruptions after a crash at ${at}`);
    if (at < known || random() > RECOVERED) continue;
    await using found = await reopened(layer, bed, storage);
    await found.reclaimLeaks({ keep: token });
    const staging = await stageOn(found, layer, model.length, token);
    await staging.publish(PLAIN);
    assertSameBytes(await layer.view(found), model, `recovered from a crash at ${at}`);
    await expectSound(found);
  }
}
