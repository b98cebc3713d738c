import { caseContext } from '@downfold/compliance';
import type { Image } from '@downfold/image';
import { MemoryDisk, memoryBackend } from '@downfold/storage-memory';
import { byteLength, guestOffset } from '@downfold/units';
import { BARRIER, dirtyRanges, type Qcow2, type Qcow2CreateOptions, qcow2 } from '../src/index.ts';
import {
  AUTOCLEAR_AT,
  EXTENSION,
  HIGH_COPIED,
  INCOMPATIBLE,
  INCOMPATIBLE_AT,
} from '../src/structures.ts';
import { Craft } from './craft.ts';
import { IMAGE, Lab, type LabOptions } from './crash-lab.ts';
import { bytesOn, openOn, readAll } from './support.ts';

const KIB = 1024;
const SMALL = 512;

/** A piece of work whose every crash is explored. */
export interface Scenario {
  /** Makes the image, all durable; resolves with a lab that records from here on. */
  readonly start: () => Promise<Lab>;
  readonly run: (lab: Lab) => Promise<void>;
  /** Pending changes up to which all subsets are tried (default 6), and random ones above that (default 16). */
  readonly exhaustive?: number;
  readonly samples?: number;
}

type Options = Omit<Qcow2CreateOptions, 'virtualSize'> & { readonly virtualSize: number };

/** An image of its own disk: created, filled, then changed byte by byte. */
export async function prepared(
  options: Options,
  fill: (image: Qcow2) => Promise<void> = async () => {},
  craft: (craft: Craft) => void = () => {},
): Promise<MemoryDisk> {
  const disk = new MemoryDisk();
  const storage = await memoryBackend(disk).create(IMAGE, { secret: false });
  await using image = await qcow2.create(storage, {
    ...options,
    virtualSize: byteLength(options.virtualSize),
  });
  await fill(image);
  await image.flush();
  craft(new Craft(disk, IMAGE));
  return disk;
}

/** Writes content that compresses, and is the same nowhere else. */
export async function put(image: Image, offset: number, length: number): Promise<void> {
  const bytes = new Uint8Array(length);
  for (let at = 0; at < length; at += 64) bytes.fill(1 + (((offset + at) / 64) % 251), at, at + 48);
  await image.write(guestOffset(offset), bytes, { fill: null });
}

const start =
  (
    options: Options,
    fill?: (image: Qcow2) => Promise<void>,
    craft?: (craft: Craft) => void,
    lab: LabOptions = {},
  ): Scenario['start'] =>
  async () =>
    Lab.start(await prepared(options, fill, craft), lab);

const noise = (length: number): Uint8Array => caseContext(7).bytes(length);

const small: Options = { clusterSize: SMALL, virtualSize: 64 * SMALL };
const below = noise(64 * SMALL);
const backed: Options = { ...small, backing: { name: 'base.raw', format: 'raw' } };
/** 64 clusters a refcount block; 64 blocks, 2 MiB, a cluster of refcount table. */
const wide: Options = { ...small, refcountBits: 64 };

/** Rule: the internal snapshot shows what it showed when it was taken. */
async function snapshotStays(lab: Lab): Promise<void> {
  const view = await snapshotView(lab.recording.initial);
  lab.rules.push(async (disk) =>
    Buffer.compare(await snapshotView(disk), view) === 0 ? null : 'the snapshot changed',
  );
}

async function snapshotView(disk: MemoryDisk): Promise<Uint8Array> {
  const copy = disk.copy();
  const craft = new Craft(copy, IMAGE);
  const entry = craft.bytes(craft.header.snapshotsOffset, 12);
  const view = new DataView(entry.buffer);
  craft.patch({
    l1TableOffset: Number(view.getBigUint64(0)),
    l1Size: view.getUint32(8),
    size: new DataView(craft.bytes(craft.header.snapshotsOffset + 52, 4).buffer).getUint32(0),
  });
  await using image = await openOn(copy, IMAGE, 'read');
  return await readAll(image);
}

/** Rule: every snapshot that is there shows what the one of its id showed when work began, or what the disk shows then. */
async function snapshotsStay(lab: Lab): Promise<void> {
  const views = await snapshotViews(lab.recording.initial);
  const disk = await readAll(lab.image, lab.fill);
  lab.rules.push(async (state) => {
    for (const [id, view] of await snapshotViews(state))
      if (Buffer.compare(view, views.get(id) ?? disk) !== 0) return `snapshot ${id} changed`;
    return null;
  });
}

async function snapshotViews(disk: MemoryDisk): Promise<ReadonlyMap<string, Uint8Array>> {
  const views = new Map<string, Uint8Array>();
  await using image = await openOn(disk, IMAGE, 'read');
  for (const { id } of await image.snapshots.list()) {
    await using snapshot = await image.snapshots.open(id);
    views.set(id, await readAll(snapshot));
  }
  return views;
}

/** Four snapshots, the disk changed before each; then some of it shared, some of it the disk's own. */
async function withSnapshots(image: Qcow2): Promise<void> {
  for (let count = 0; count < 4; count++) {
    await put(image, 0, (2 + 3 * count) * SMALL);
    await image.deallocate({ offset: guestOffset(0), length: byteLength(count * SMALL) });
    await image.snapshots.create({ name: `s${count}`, date: '2026-11-25T00:00:00Z' });
  }
  await put(image, 3 * SMALL, 2 * SMALL);
}

/** Rule: where a bitmap is consistent, everything that changed since it was added is set in it. */
async function bitmapsTrue(lab: Lab): Promise<void> {
  const initial = await readAll(lab.image);
  lab.rules.push(async (disk) => {
    await using image = await openOn(disk, IMAGE, 'read');
    const seen = await readAll(image);
    for (const { name, inconsistent } of await image.bitmaps.list()) {
      // added when some of that had changed already
      if (inconsistent || name === 'more') continue;
      const view = seen.slice();
      for (const { offset, length } of dirtyRanges(await image.bitmaps.content(name)))
        view.set(initial.subarray(offset, offset + length), offset);
      if (Buffer.compare(view, initial) !== 0) return `bitmap ${name} lacks a change`;
    }
    return null;
  });
}

/** Makes the bitmaps `names`, all at once and durably. */
async function changeBitmaps(
  lab: Lab,
  names: readonly string[],
  work: () => Promise<void>,
): Promise<void> {
  await lab.settle(() => lab.change('bitmaps', names.join(), work));
}

/** Rule: nothing of the file has changed while `still` is true of the header. */
function beforeAnyChange(
  lab: Lab,
  what: string,
  still: (craft: Craft) => boolean,
  except: readonly [from: number, to: number],
): void {
  const blank = (disk: MemoryDisk): Uint8Array => bytesOn(disk, IMAGE).fill(0, ...except);
  const initial = blank(lab.recording.initial);
  lab.rules.push(async (disk) => {
    if (!still(new Craft(disk, IMAGE))) return null;
    return Buffer.compare(blank(disk), initial) === 0 ? null : `${what}, and the image changed`;
  });
}

/** An allocated cluster that nothing refers to any more holds old data; new clusters must never show it. */
async function usedBefore(image: Image): Promise<void> {
  await put(image, 0, 24 * SMALL);
  await image.flush();
  await image.deallocate({ offset: guestOffset(4 * SMALL), length: byteLength(16 * SMALL) });
}

const mark = (job: string) => ({ state: 'invalid', job, date: '2026-11-25T00:00:00Z' }) as const;

/** The scenarios by name: each kind of change that a writer makes, and each rule that it has to keep. */
export const scenarios: Readonly<Record<string, Scenario>> = {
  'allocate: first data of an empty image': {
    start: start(small),
    run: async (lab) => {
      await lab.write(0, 2 * SMALL);
      await lab.write(40 * SMALL, SMALL);
      await lab.flush();
      await lab.write(41 * SMALL, SMALL);
    },
  },
  'allocate: clusters that were used before, which no longer hold zeros': {
    start: start(small, usedBefore, (craft) => craft.soil()),
    run: async (lab) => {
      await lab.write(30 * SMALL, 3 * SMALL);
      await lab.write(50 * SMALL, SMALL);
      await lab.flush();
    },
  },
  'allocate: a cluster of which a part is written, over a backing file': {
    start: start({ ...backed, clusterSize: 4 * KIB, virtualSize: 64 * KIB }, undefined, undefined, {
      below: noise(60 * KIB),
    }),
    run: async (lab) => {
      await lab.write(SMALL, 2 * SMALL);
      await lab.write(7 * SMALL, 3 * SMALL);
      await lab.flush();
      await lab.write(13 * 4 * KIB, 4 * KIB);
      await lab.flush();
    },
  },
  'allocate: copied from another file': {
    start: start(small, usedBefore, (craft) => craft.soil()),
    run: async (lab) => {
      await lab.copy(2 * SMALL, 5 * SMALL);
      await lab.flush();
    },
  },
  'overwrite in place': {
    start: start(small, (image) => put(image, 0, 8 * SMALL)),
    run: async (lab) => {
      await lab.write(SMALL, 3 * SMALL);
      await lab.flush();
      await lab.write(2 * SMALL, SMALL);
    },
  },
  'deallocate, then use the clusters again': {
    start: start(backed, (image) => put(image, 0, 12 * SMALL), undefined, { below }),
    run: async (lab) => {
      await lab.deallocate(2 * SMALL, 6 * SMALL);
      await lab.flush();
      await lab.write(40 * SMALL, 4 * SMALL);
      await lab.flush();
      await lab.write(2 * SMALL, 2 * SMALL);
      await lab.deallocate(10 * SMALL, 2 * SMALL);
      await lab.flush();
    },
  },
  'deallocate and write again at once': {
    start: start(backed, (image) => put(image, 0, 12 * SMALL), undefined, { below }),
    run: async (lab) => {
      await lab.deallocate(0, 4 * SMALL);
      await lab.write(SMALL, 2 * SMALL);
      await lab.zero(2 * SMALL, 4 * SMALL);
      await lab.flush();
      await lab.write(3 * SMALL, SMALL);
      await lab.flush();
    },
  },
  'write zeroes over data and over a backing file': {
    start: start(backed, (image) => put(image, 0, 8 * SMALL), undefined, { below }),
    run: async (lab) => {
      await lab.zero(4 * SMALL, 8 * SMALL);
      await lab.flush();
      await lab.write(5 * SMALL, SMALL);
      await lab.flush();
    },
  },
  'write into preallocated zeros': {
    start: start(
      backed,
      (image) => put(image, 0, 8 * SMALL),
      (craft) => craft.preallocateZero([1, 2, 3, 4]),
      { below },
    ),
    run: async (lab) => {
      await lab.write(2 * SMALL, 2 * SMALL);
      await lab.flush();
      await lab.deallocate(SMALL, SMALL);
      await lab.flush();
    },
  },
  'write into a part of a preallocated zero cluster': {
    start: start(
      { clusterSize: 2 * KIB, virtualSize: 32 * KIB },
      (image) => put(image, 0, 8 * KIB),
      (craft) => craft.preallocateZero([1, 2]),
    ),
    run: async (lab) => {
      await lab.write(2 * KIB + SMALL, SMALL);
      await lab.flush();
    },
  },
  'rewrite compressed clusters that share host clusters': {
    start: start(
      backed,
      (image) => put(image, 0, 10 * SMALL),
      (craft) => craft.compress([2, 3, 4, 5, 6, 7]),
      { below },
    ),
    run: async (lab) => {
      await lab.write(3 * SMALL, SMALL);
      await lab.flush();
      await lab.deallocate(4 * SMALL, 2 * SMALL);
      await lab.write(2 * SMALL, SMALL);
      await lab.flush();
      await lab.write(30 * SMALL, 3 * SMALL);
      await lab.flush();
    },
  },
  'rewrite a part of a compressed cluster': {
    start: start(
      { clusterSize: 4 * KIB, virtualSize: 64 * KIB },
      (image) => put(image, 0, 20 * KIB),
      (craft) => craft.compress([1, 2, 3]),
    ),
    run: async (lab) => {
      await lab.write(5 * KIB, SMALL);
      await lab.zero(10 * KIB, KIB);
      await lab.flush();
    },
  },
  'take a snapshot': {
    start: start(small, withSnapshots),
    run: async (lab) => {
      await snapshotsStay(lab);
      await lab.settle(() =>
        lab.image.snapshots.create({ name: 'new', date: '2026-11-25T00:00:00Z' }),
      );
      await lab.write(5 * SMALL, 2 * SMALL);
      await lab.flush();
    },
  },
  'apply a snapshot': {
    start: start(small, withSnapshots),
    run: async (lab) => {
      await snapshotsStay(lab);
      const view = await snapshotViews(lab.recording.initial);
      await lab.replace(view.get('2') as Uint8Array, () => lab.image.snapshots.apply('2'));
      await lab.write(2 * SMALL, 3 * SMALL);
      await lab.flush();
    },
  },
  'delete snapshots': {
    start: start(small, withSnapshots),
    run: async (lab) => {
      await snapshotsStay(lab);
      await lab.settle(() => lab.image.snapshots.delete('2'));
      await lab.write(2 * SMALL, 3 * SMALL);
      await lab.flush();
      await lab.settle(() => lab.image.snapshots.delete('4'));
      await lab.write(20 * SMALL, 12 * SMALL);
      await lab.flush();
    },
  },
  'delete a snapshot of which the disk has nothing any more': {
    start: start(small, async (image) => {
      await put(image, 0, 12 * SMALL);
      await image.snapshots.create({ name: 's', date: '2026-11-25T00:00:00Z' });
      await put(image, 0, 12 * SMALL);
    }),
    run: async (lab) => {
      await snapshotsStay(lab);
      await lab.settle(() => lab.image.snapshots.delete('1'));
    },
  },
  'copy on write from an internal snapshot': {
    start: start(
      small,
      (image) => put(image, 0, 8 * SMALL),
      (craft) => craft.snapshot(),
    ),
    run: async (lab) => {
      await snapshotStays(lab);
      await lab.write(2 * SMALL, 2 * SMALL);
      await lab.flush();
      await lab.write(2 * SMALL, SMALL);
      await lab.zero(4 * SMALL, SMALL);
      await lab.deallocate(5 * SMALL, SMALL);
      await lab.flush();
    },
  },
  'copy on write of a part of a cluster and of compressed ones from a snapshot': {
    start: start(
      { clusterSize: 2 * KIB, virtualSize: 64 * KIB, refcountBits: 2 },
      (image) => put(image, 0, 16 * KIB),
      (craft) => {
        craft.compress([4]);
        craft.snapshot();
      },
    ),
    run: async (lab) => {
      await snapshotStays(lab);
      await lab.write(3 * SMALL, 2 * SMALL);
      await lab.write(8 * KIB + SMALL, SMALL);
      await lab.flush();
    },
  },
  'new refcount blocks': {
    start: start(wide, (image) => put(image, 0, 40 * SMALL)),
    run: async (lab) => {
      await lab.write(40 * SMALL, 24 * SMALL);
      await lab.flush();
      await lab.deallocate(0, 2 * SMALL);
      await lab.flush();
    },
    exhaustive: 4,
    samples: 8,
  },
  'a larger refcount table': {
    start: start(
      { ...wide, virtualSize: 4096 * SMALL },
      (image) => put(image, 0, 3926 * SMALL),
      undefined,
      { window: [[3900 * SMALL, 4000 * SMALL]] },
    ),
    run: async (lab) => {
      await lab.write(3930 * SMALL, 60 * SMALL);
      await lab.flush();
    },
    exhaustive: 3,
    samples: 4,
  },
  'grow the disk within its L1 table': {
    start: start(backed, (image) => put(image, 60 * SMALL, 4 * SMALL), undefined, {
      below: noise(200 * SMALL),
    }),
    run: async (lab) => {
      await lab.resize(190 * SMALL);
      await lab.write(180 * SMALL, SMALL);
      await lab.flush();
    },
    exhaustive: 4,
    samples: 8,
  },
  'grow the disk to a larger L1 table': {
    start: start(
      { ...small, virtualSize: 4000 * SMALL },
      (image) => put(image, 3998 * SMALL, 2 * SMALL),
      undefined,
      {
        window: [[3990 * SMALL, 4200 * SMALL]],
      },
    ),
    run: async (lab) => {
      await lab.write(3996 * SMALL, SMALL);
      await lab.resize(4200 * SMALL);
      await lab.write(4100 * SMALL, SMALL);
      await lab.flush();
    },
  },
  'grow the disk to an L1 table longer than a refcount block counts': {
    start: start(wide, (image) => put(image, 0, 4 * SMALL), undefined, {
      window: [
        [0, 64 * SMALL],
        [262_000 * SMALL, 262_200 * SMALL],
      ],
    }),
    run: async (lab) => {
      await lab.resize(300_000 * SMALL);
      await lab.write(262_100 * SMALL, SMALL);
      await lab.flush();
    },
    exhaustive: 3,
    samples: 4,
  },
  'shrink the disk in the middle of a cluster, then grow it again': {
    start: start(
      { ...backed, clusterSize: 2 * SMALL },
      (image) => put(image, 44 * SMALL, 20 * SMALL),
      undefined,
      { below },
    ),
    run: async (lab) => {
      await lab.write(40 * SMALL, SMALL);
      await lab.shrink(51 * SMALL);
      await lab.write(30 * SMALL, 3 * SMALL);
      await lab.resize(60 * SMALL);
      await lab.write(58 * SMALL, SMALL);
      await lab.flush();
    },
    exhaustive: 4,
    samples: 8,
  },
  'relink, the name in the first sector': {
    start: start(backed, (image) => put(image, 0, SMALL)),
    run: async (lab) => {
      await lab.setBacking({ name: 'other.qcow2', format: 'qcow2' });
      await lab.setBacking({ name: 'c', format: 'raw' });
      await lab.setBacking(null);
      await lab.setBacking({ name: 'd/e/f.qcow2', format: 'qcow2' });
    },
  },
  'relink, the name beyond the first sector': {
    start: start({ ...backed, clusterSize: 4 * KIB }, undefined, (craft) =>
      craft.extend([EXTENSION.featureNames, new Uint8Array(288)], [0x1234_5678, noise(40)]),
    ),
    run: async (lab) => {
      await lab.setBacking({ name: `${'x'.repeat(700)}.qcow2`, format: 'qcow2' });
      await lab.setBacking({ name: `${'y'.repeat(900)}.raw`, format: 'raw' });
      await lab.setBacking({ name: 'short.qcow2', format: 'qcow2' });
    },
  },
  'relink, a first format behind a long extension area': {
    start: start({ ...small, clusterSize: 4 * KIB }, undefined, (craft) =>
      craft.extend([EXTENSION.featureNames, noise(384)]),
    ),
    run: async (lab) => {
      await lab.setBacking({ name: 'first.qcow2', format: 'qcow2' });
    },
  },
  'marks: a first one, another, none': {
    start: start({ ...backed, clusterSize: 4 * KIB }, undefined, (craft) =>
      // the mark would straddle sectors
      craft.extend([0x1234_5678, noise(336)]),
    ),
    run: async (lab) => {
      await lab.setMark(mark('a'));
      await lab.setMark(mark('12345678-1234-1234-1234-123456789012'));
      await lab.setMark(null);
      await lab.setMark(mark('c'));
    },
  },
  'a mark whose room the backing name takes': {
    start: start(
      { ...backed, clusterSize: 4 * KIB, backing: { name: `${'z'.repeat(1000)}`, format: 'raw' } },
      undefined,
      (craft) => craft.extend([0x1234_5678, noise(56)]),
    ),
    run: async (lab) => {
      await lab.setMark(mark('a'));
    },
  },
  'unknown autoclear bits': {
    start: start(
      small,
      (image) => put(image, 0, 4 * SMALL),
      (craft) => craft.autoclear(0x8000_0000, 0x100),
    ),
    run: async (lab) => {
      beforeAnyChange(
        lab,
        'an unknown autoclear bit is set',
        (craft) => craft.word(AUTOCLEAR_AT) !== 0,
        [0, 0],
      );
      await lab.write(SMALL, SMALL);
      await lab.flush();
    },
  },
  'unknown autoclear bits, and a relink': {
    start: start(backed, undefined, (craft) => craft.autoclear(0, 0x100)),
    run: async (lab) => {
      beforeAnyChange(
        lab,
        'an unknown autoclear bit is set',
        (craft) => craft.word(AUTOCLEAR_AT + 4) !== 0,
        [0, 0],
      );
      await lab.setBacking({ name: 'b', format: 'raw' });
    },
  },
  'persistent bitmaps': {
    start: start(
      small,
      (image) => put(image, 0, 4 * SMALL),
      (craft) => void craft.bitmap(),
    ),
    run: async (lab) => {
      const craft = new Craft(lab.recording.initial, IMAGE);
      const flagsAt = flagsOf(craft);
      beforeAnyChange(
        lab,
        'a bitmap is not in use',
        (other) => (other.word(flagsAt) & 1) === 0,
        [0, 0],
      );
      await lab.write(SMALL, SMALL);
      await lab.flush();
    },
  },
  'bitmaps that record, are changed, and are saved': {
    start: start(small, async (image) => {
      await put(image, 0, 4 * SMALL);
      await image.bitmaps.add({ name: 'fine', granularity: SMALL });
      await image.bitmaps.add({ name: 'coarse', granularity: 8 * SMALL });
    }),
    run: async (lab) => {
      await bitmapsTrue(lab);
      await lab.write(SMALL, SMALL);
      await lab.flush();
      await lab.write(9 * SMALL, 3 * SMALL);
      await lab.settle(() => lab.reopen());
      await lab.write(20 * SMALL, SMALL);
      await changeBitmaps(lab, ['fine', 'coarse', 'more'], () =>
        lab.image.bitmaps.add({ name: 'more', granularity: 4 * SMALL }),
      );
      await lab.write(3 * SMALL, SMALL);
      await lab.settle(() => lab.image.bitmaps.save());
      await lab.deallocate(9 * SMALL, SMALL);
      await lab.flush();
      await changeBitmaps(lab, ['coarse', 'more'], () => lab.image.bitmaps.remove('fine'));
      await lab.settle(() => lab.reopen());
    },
    samples: 8,
  },
  'a first bitmap is added, and removed': {
    start: start(small, (image) => put(image, 0, 4 * SMALL)),
    run: async (lab) => {
      await bitmapsTrue(lab);
      await changeBitmaps(lab, ['one'], () => lab.image.bitmaps.add({ name: 'one' }));
      await lab.write(SMALL, SMALL);
      await changeBitmaps(lab, [], () => lab.image.bitmaps.remove('one'));
      await lab.write(0, SMALL);
      await lab.flush();
    },
  },
  'compressed clusters are written, beside others, over others, and over themselves': {
    start: start({ ...small, clusterSize: KIB }, usedBefore, (craft) => craft.soil()),
    run: async (lab) => {
      await lab.compress(0, 6 * KIB);
      await lab.flush();
      await lab.compress(3 * KIB, 4 * KIB);
      await lab.write(KIB, SMALL);
      await lab.flush();
      await lab.deallocate(4 * KIB, 3 * KIB);
      await lab.compress(20 * KIB, 2 * KIB);
      await lab.flush();
      await lab.compress(22 * KIB, 3 * KIB);
      await lab.flush();
    },
  },
  'amend: to version 2, without zero clusters, and back': {
    start: start(
      { ...backed, backing: { name: 'a name in the way of a longer header.raw', format: 'raw' } },
      async (image) => {
        await put(image, 0, 4 * SMALL);
        await image.writeZeroes(
          { offset: guestOffset(2 * SMALL), length: byteLength(6 * SMALL) },
          { fill: null },
        );
      },
      undefined,
      { below },
    ),
    run: async (lab) => {
      await lab.change('compat', '0.10', () => lab.image.amend({ version: 2 }));
      await lab.write(20 * SMALL, SMALL);
      await lab.flush();
      await lab.settle(() => lab.change('compat', '1.1', () => lab.image.amend({ version: 3 })));
      await lab.write(20 * SMALL, SMALL);
      await lab.flush();
    },
  },
  'amend: refcounts of other widths, where clusters were used before': {
    start: start(small, usedBefore, (craft) => craft.soil()),
    run: async (lab) => {
      await lab.write(0, 8 * SMALL);
      await lab.image.amend({ refcountBits: 1 });
      await lab.write(4 * SMALL, 8 * SMALL);
      await lab.flush();
      await lab.image.amend({ refcountBits: 64 });
      await lab.write(20 * SMALL, 8 * SMALL);
      await lab.flush();
    },
  },
  'preallocate, where clusters were used before': {
    start: start(small, usedBefore, (craft) => craft.soil()),
    run: async (lab) => {
      await lab.image.preallocate(
        { offset: guestOffset(2 * SMALL), length: byteLength(50 * SMALL) },
        'metadata',
      );
      await lab.write(30 * SMALL, SMALL);
      await lab.flush();
    },
  },
  'a dirty image is opened, and written': {
    start: async () => {
      const disk = await prepared(
        small,
        (image) => put(image, 0, 12 * SMALL),
        (craft) => {
          // counted too low, too high, and a copied flag that is neither
          for (const [cluster, by] of [
            [2, -1],
            [3, -1],
            [5, 1],
          ] as const)
            craft.addReference(craft.hostOf(cluster), by);
          craft.setWord(craft.entryAt(7), craft.word(craft.entryAt(7)) & ~HIGH_COPIED);
          craft.setWord(INCOMPATIBLE_AT + 4, INCOMPATIBLE.dirty);
        },
      );
      const lab = await Lab.start(disk);
      lab.damaged = true;
      const opened = lab.position;
      const view = await readAll(lab.image);
      lab.rules.push(async (state, at) => {
        const dirty =
          (new Craft(state, IMAGE).word(INCOMPATIBLE_AT + 4) & INCOMPATIBLE.dirty) !== 0;
        if (dirty && at > opened) return 'it is dirty again';
        await using image = await openOn(state, IMAGE, 'read');
        const seen = (await readAll(image)).subarray(0, 20 * SMALL);
        if (Buffer.compare(seen, view.subarray(0, 20 * SMALL)) !== 0) return 'the disk changed';
        const { corruptions } = await image.check();
        if (!dirty && corruptions > 0) return 'it is neither sound nor dirty';
        if (!dirty) return null;
        await using repaired = await openOn(state, IMAGE, 'write');
        const left = await repaired.check();
        return left.corruptions + left.leaks === 0 ? null : 'it is not repaired by the next one';
      });
      return lab;
    },
    run: async (lab) => {
      await lab.write(20 * SMALL, 2 * SMALL);
      await lab.flush();
    },
  },
  'an overlap that marks the image corrupt': {
    start: start(
      small,
      (image) => put(image, 0, 4 * SMALL),
      (craft) => {
        // the host cluster of guest cluster 1 is the L2 table: a write in place would ruin it
        const at = craft.entryAt(1);
        craft.setOffset(at, at - (at % SMALL));
        craft.setWord(at, craft.word(at) | 0x8000_0000);
      },
    ),
    run: async (lab) => {
      // the image was corrupt before; what is judged is the bit
      const before = lab.position;
      let refused = Number.POSITIVE_INFINITY;
      lab.damaged = true;
      lab.rules.push(async (disk, at) => {
        const corrupt = (new Craft(disk, IMAGE).word(76) & 2) !== 0;
        return at >= refused && !corrupt ? 'the corrupt bit is not durable' : null;
      });
      await lab.image.write(guestOffset(SMALL), new Uint8Array(SMALL), { fill: null }).then(
        () => lab.rules.push(async () => 'a write over metadata was not refused'),
        () => (refused = lab.position),
      );
      if (lab.position === before) throw new Error('nothing was written');
    },
  },
  'extended L2: subclusters written, zeroed and deallocated': {
    start: start(
      { ...backed, clusterSize: 16 * KIB, extendedL2: true, virtualSize: 64 * KIB },
      (image) => put(image, 0, 20 * SMALL),
      undefined,
      { below: noise(60 * KIB) },
    ),
    run: async (lab) => {
      await lab.write(18 * SMALL, 4 * SMALL);
      await lab.zero(2 * SMALL, 3 * SMALL);
      await lab.deallocate(4 * SMALL, 3 * SMALL);
      await lab.flush();
      await lab.write(3 * SMALL, 2 * SMALL);
      await lab.deallocate(0, 16 * KIB);
      await lab.flush();
      await lab.write(40 * SMALL, SMALL);
      await lab.flush();
    },
  },
  'version 2: written, zeroed and deallocated': {
    start: start({ ...backed, version: 2 }, (image) => put(image, 0, 8 * SMALL), undefined, {
      below,
    }),
    run: async (lab) => {
      await lab.zero(2 * SMALL, 2 * SMALL);
      await lab.deallocate(4 * SMALL, 2 * SMALL);
      await lab.write(20 * SMALL, SMALL);
      await lab.flush();
      await lab.setBacking({ name: 'b', format: 'qcow2' });
    },
  },
  'flushes while writes go on': {
    start: start(backed, (image) => put(image, 0, 12 * SMALL), undefined, { below }),
    run: async (lab) => {
      await Promise.all([
        lab.deallocate(0, 4 * SMALL),
        lab.flush(),
        lab.write(30 * SMALL, 2 * SMALL),
        lab.flush(),
        lab.write(SMALL, SMALL),
        lab.zero(8 * SMALL, 2 * SMALL),
        lab.flush(),
      ]);
      await lab.write(9 * SMALL, SMALL);
      await lab.flush();
    },
    exhaustive: 5,
  },
  'relink, mark and growth while writes go on': {
    start: start({ ...wide, backing: { name: 'base.raw', format: 'raw' } }, (image) =>
      put(image, 0, 50 * SMALL),
    ),
    run: async (lab) => {
      await Promise.all([
        lab.write(50 * SMALL, 14 * SMALL),
        lab.flush(),
        lab.setBacking({ name: 'other', format: 'qcow2' }),
        lab.setMark(mark('a')),
        lab.flush(),
      ]);
    },
    exhaustive: 4,
    samples: 8,
  },
  'a process is killed before its mapping is durable; the next one gives its leaks back': {
    start: start(backed, (image) => put(image, 0, 8 * SMALL), undefined, { below }),
    run: async (lab) => {
      await lab.killDuring(BARRIER.mapping, async () => {
        await lab.deallocate(0, 4 * SMALL);
        await lab.write(6 * SMALL, 4 * SMALL);
        await lab.flush();
      });
      await lab.takeOver();
      lab.leaksUntil = Number.POSITIVE_INFINITY;
      await lab.image.reclaimLeaks();
      lab.leaksUntil = lab.position;
      await lab.write(30 * SMALL, 4 * SMALL);
      await lab.flush();
    },
  },
  create: {
    start: () => Lab.create({ ...backed, virtualSize: byteLength(64 * SMALL) }),
    run: async (lab) => {
      await lab.write(SMALL, SMALL);
      await lab.flush();
    },
  },
  'publish a staging': {
    start: start(backed, (image) => put(image, 0, 12 * SMALL), undefined, { below }),
    run: async (lab) => {
      await lab.publish([2 * SMALL, 40 * SMALL], 3 * SMALL);
      await lab.write(30 * SMALL, 2 * SMALL);
      await lab.flush();
    },
    exhaustive: 5,
  },
  'leaks given back': {
    start: start(
      small,
      (image) => put(image, 0, 4 * SMALL),
      (craft) => {
        craft.append(new Uint8Array(3 * SMALL));
      },
    ),
    run: async (lab) => {
      lab.leaksUntil = Number.POSITIVE_INFINITY;
      await lab.image.reclaimLeaks();
      lab.leaksUntil = lab.position;
    },
  },
};

function flagsOf(craft: Craft): number {
  const area = craft.bytes(112, 8 + 24);
  return Number(new DataView(area.buffer).getBigUint64(24)) + 12;
}
