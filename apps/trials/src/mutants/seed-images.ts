import { type Qcow2, type Qcow2CreateOptions, qcow2 } from '@downfold/qcow2';
import type { Storage } from '@downfold/storage';
import { MemoryDisk, memoryBackend } from '@downfold/storage-memory';
import { byteLength, guestOffset, hostOffset } from '@downfold/units';
import { draw } from '../tools/draw.ts';

/** Where every image lies on its disk, and the data file of those that have one. */
export const IMAGE = '/image';
export const DATA = '/data';

const KIB = 1024;
const DATE = '2026-01-01T00:00:00.000Z';

/** A valid image that mutants are made of. */
export interface SeedImage {
  readonly name: string;
  readonly disk: MemoryDisk;
  /** Guest data lies in `DATA`. */
  readonly hasDataFile: boolean;
  /** How often it is drawn, against the others: large clusters cost more. */
  readonly weight: number;
}

/** How a seed image is made. */
interface Recipe {
  readonly name: string;
  readonly options?: Partial<Omit<Qcow2CreateOptions, 'dataFile'>>;
  readonly dataFile?: 'raw' | 'not raw';
  /** What is done to it, beyond the data that every image gets. */
  readonly more?: (image: Qcow2) => Promise<void>;
  /** What is done to the bytes of the closed image. */
  readonly afterwards?: (storage: Storage) => Promise<void>;
  readonly weight?: number;
}

const write = (image: Qcow2, at: number, length: number, seed: number): Promise<void> =>
  image.write(guestOffset(at), noise(seed, length), { fill: null });

/** Bytes that differ from sector to sector, and repeat enough to be compressed. */
function noise(seed: number, length: number): Uint8Array {
  const random = draw(seed);
  const tile = Uint8Array.from({ length: 64 }, () => random.integer(256));
  return Uint8Array.from({ length }, (_, at) => (tile[at % 64] ?? 0) ^ ((at >> 9) & 0xff));
}

async function compressed(image: Qcow2): Promise<void> {
  const { clusterSize } = image.geometry;
  await image.writeCompressed(guestOffset(4 * clusterSize), noise(5, 3 * clusterSize));
}

async function snapshots(image: Qcow2): Promise<void> {
  await image.snapshots.create({ name: 'first', date: DATE });
  await write(image, 1 * KIB, 3 * KIB, 6);
}

async function snapshotsOfTwoSizes(image: Qcow2): Promise<void> {
  await snapshots(image);
  await image.resize(byteLength(image.geometry.virtualSize * 2), { fill: null });
  await image.snapshots.create({ name: 'second, larger', date: DATE });
  await write(image, 40 * KIB, 5 * KIB, 7);
}

async function bitmaps(image: Qcow2): Promise<void> {
  await image.bitmaps.add({ name: 'all', granularity: 512 });
  await image.bitmaps.add({ name: 'coarse', granularity: 65_536, enabled: false });
  await write(image, 9 * KIB, 2 * KIB, 8);
}

async function stagedWithUndo(image: Qcow2): Promise<void> {
  const { virtualSize } = image.geometry;
  const staging = await image.stage({ virtualSize, from: null, fill: null });
  await staging.write(guestOffset(2 * KIB), noise(9, 9 * KIB), { fill: null });
  await staging.publish({ keepUndo: { name: 'undo', date: DATE } });
}

/** As a process leaves an image that was killed with lazy refcounts: dirty, and some clusters not counted. */
async function leaveDirty(storage: Storage): Promise<void> {
  const [word, entry] = [new Uint8Array(8), new Uint8Array(8)];
  await storage.read(hostOffset(72), word);
  word[7] = (word[7] ?? 0) | 1;
  await storage.write(hostOffset(72), word, { what: 'dirty bit' });
  await storage.read(hostOffset(48), entry);
  const table = Number(new DataView(entry.buffer).getBigUint64(0));
  await storage.read(hostOffset(table), entry);
  const block = Number(new DataView(entry.buffer).getBigUint64(0));
  await storage.write(hostOffset(block + 2 * 7), new Uint8Array(4), { what: 'refcounts' });
}

const small = { clusterSize: 512 };
const middle = { clusterSize: 4 * KIB };
const backing = { name: 'below.raw', format: 'raw' };
const width = (refcountBits: number): Recipe => ({
  name: `refcounts of ${refcountBits} bits`,
  options: { ...small, refcountBits },
});

const RECIPES: readonly Recipe[] = [
  { name: 'v3', options: small },
  { name: 'v3, 4 KiB', options: middle },
  { name: 'v3, 64 KiB', weight: 0.05 },
  { name: 'v3, 2 MiB', options: { clusterSize: 2048 * KIB }, weight: 0.002 },
  { name: 'v2', options: { ...small, version: 2 } },
  { name: 'v2, backing', options: { ...middle, version: 2, backing } },
  { name: 'v2, snapshots', options: { ...small, version: 2 }, more: snapshots },
  { name: 'backing', options: { ...small, backing } },
  { name: 'extended L2', options: { clusterSize: 16 * KIB, extendedL2: true }, weight: 0.5 },
  {
    name: 'extended L2, backing, compressed',
    options: {
      clusterSize: 16 * KIB,
      extendedL2: true,
      backing,
      virtualSize: byteLength(128 * KIB),
    },
    more: compressed,
    weight: 0.5,
  },
  ...[1, 2, 4, 8, 32, 64].map(width),
  { name: 'snapshots', options: small, more: snapshotsOfTwoSizes },
  { name: 'snapshots, 4 KiB', options: middle, more: snapshotsOfTwoSizes },
  { name: 'bitmaps', options: small, more: bitmaps },
  { name: 'bitmaps, 4 KiB', options: { ...middle, backing }, more: bitmaps },
  { name: 'compressed', options: middle, more: compressed },
  { name: 'compressed, zstd', options: { ...middle, compression: 'zstd' }, more: compressed },
  { name: 'data file', options: middle, dataFile: 'not raw' },
  { name: 'data file, raw', options: middle, dataFile: 'raw' },
  { name: 'staged, with undo', options: small, more: stagedWithUndo },
  {
    name: 'dirty',
    options: { ...small, lazyRefcounts: true },
    afterwards: leaveDirty,
  },
  {
    name: 'marked',
    options: { ...middle, backing },
    more: (image) => image.setMark({ state: 'invalid', job: 'a job', date: DATE }),
  },
];

/** Makes all of them. The same bytes each time. */
export async function seedImages(): Promise<readonly SeedImage[]> {
  return await Promise.all(RECIPES.map(make));
}

async function make(recipe: Recipe): Promise<SeedImage> {
  const { name, options = {}, dataFile, weight = 1 } = recipe;
  const disk = new MemoryDisk();
  const backend = memoryBackend(disk);
  const virtualSize = byteLength(48 * KIB);
  const storage = await backend.create(IMAGE, { secret: false });
  const data = dataFile && {
    name: 'data.raw',
    raw: dataFile === 'raw',
    storage: await backend.create(DATA, { secret: false }),
  };
  {
    const all = { virtualSize, ...options, ...(data && { dataFile: data }) };
    await using image = await qcow2.create(storage, all);
    await write(image, 0, 3 * KIB + 512, 1);
    await write(image, 20 * KIB, 4 * KIB, 2);
    await image.writeZeroes(
      { offset: guestOffset(20 * KIB), length: byteLength(2 * KIB) },
      { fill: null },
    );
    await recipe.more?.(image);
    await image.flush();
  }
  await using closed = await backend.open(IMAGE, 'write');
  await recipe.afterwards?.(closed);
  return { name, disk, hasDataFile: data !== undefined, weight };
}
