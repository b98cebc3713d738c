import { type ChainEnvironment, defaultPolicy, openChain, viewOf } from '@downfold/chain';
import type { CowSource, Image } from '@downfold/image';
import { qcow2 } from '@downfold/qcow2';
import { raw } from '@downfold/raw';
import type { StorageBackend } from '@downfold/storage';
import { MemoryDisk, memoryBackend } from '@downfold/storage-memory';
import { byteLength, guestOffset, hostOffset } from '@downfold/units';
import { type Draw, draw } from '../tools/draw.ts';
import { addCompressed, type ForeignFile, setUnknownAutoclear, takeSnapshot } from './foreign.ts';
import { type ImageSpec, type Scenario, SECTOR_BYTES } from './scenario.ts';

/** The one directory of every scenario: its pool. */
const DIRECTORY = '/pool';
const LONG_NAME = '-'.padEnd(150, 'long');

/** Path of an image of a scenario. */
export function pathOf(scenario: Scenario, name: string): string {
  return `${DIRECTORY}/${name}${scenario.kind === 'names' ? LONG_NAME : ''}`;
}

/** A disk with the images of a scenario, all of it durable. The same scenario gives the same bytes. */
export async function build(scenario: Scenario): Promise<MemoryDisk> {
  const disk = new MemoryDisk();
  disk.makeDirectory(DIRECTORY);
  const backend = memoryBackend(disk);
  const random = draw(scenario.seed);
  const content = new Content(random);
  for (const spec of scenario.images) await buildImage(scenario, spec, backend, content, random);
  return disk;
}

async function buildImage(
  scenario: Scenario,
  spec: ImageSpec,
  backend: StorageBackend,
  content: Content,
  random: Draw,
): Promise<void> {
  const path = pathOf(scenario, spec.name);
  const below = scenario.images.find(({ name }) => name === spec.backing);
  const environment: ChainEnvironment = { backend, formats: [qcow2, raw], policy: defaultPolicy };
  await using chain =
    below === undefined
      ? null
      : await openChain(pathOf(scenario, below.name), below.format, environment);
  const fill = chain === null ? null : viewOf(chain.layers, chain.layers.length - 1);
  {
    const storage = await backend.create(path, { secret: false });
    const virtualSize = byteLength(spec.size);
    await using image =
      spec.format === 'raw'
        ? await raw.create(storage, { virtualSize })
        : await qcow2.create(storage, {
            virtualSize,
            clusterSize: spec.clusterSize,
            version: spec.version,
            extendedL2: spec.extendedL2,
            refcountBits: spec.refcountBits,
            backing: below === undefined ? null : referenceTo(scenario, below, random),
          });
    await drawContent(image, spec, fill, content, random);
    await image.flush();
  }
  if (!spec.compressed && !spec.snapshot && !spec.unknownAutoclear) return;
  await rewrite(backend, path, (file) => {
    if (spec.compressed) addCompressed(file, content.clusters(spec, random));
    if (spec.snapshot) takeSnapshot(file);
    if (spec.unknownAutoclear) setUnknownAutoclear(file);
  });
  if (spec.snapshot) {
    // some clusters no longer shared
    const storage = await backend.open(path, 'write');
    await using image = await qcow2.open(storage, { mode: 'write' });
    await drawContent(image, { ...spec, density: 0.1 }, fill, content, random);
    await image.flush();
  }
}

function referenceTo(
  scenario: Scenario,
  below: ImageSpec,
  random: Draw,
): { readonly name: string; readonly format: string } {
  const path = pathOf(scenario, below.name);
  const name = random.chance(0.3) ? path : path.slice(DIRECTORY.length + 1);
  return { name, format: below.format };
}

/** Draws content: runs of data, of zeros, and of data that is deallocated again. */
async function drawContent(
  image: Image,
  { density, size, format }: ImageSpec,
  fill: CowSource | null,
  content: Content,
  random: Draw,
): Promise<void> {
  const longest = density === 1 ? 256 : 6;
  for (let at = 0; at < size; ) {
    const length = Math.min(size - at, random.between(1, longest) * SECTOR_BYTES);
    const range = { offset: guestOffset(at), length: byteLength(length) };
    if (random.chance(density)) {
      const kind = density === 1 ? 0 : random.integer(10);
      if (kind < 8) await image.write(range.offset, content.bytes(at, length), { fill });
      else await image.writeZeroes(range, { fill });
      if (kind === 7 && format === 'qcow2') await image.deallocate(range);
      if (random.chance(0.2)) await image.flush();
    }
    at += length;
  }
}

async function rewrite(
  backend: StorageBackend,
  path: string,
  change: (file: ForeignFile) => void,
): Promise<void> {
  await using storage = await backend.open(path, 'write');
  const file: ForeignFile = { bytes: new Uint8Array(await storage.length()) };
  await storage.read(hostOffset(0), file.bytes);
  change(file);
  await storage.write(hostOffset(0), file.bytes);
}

/** Bytes that are different for every sector of every write, so that whatever is foreign is seen to be. */
class Content {
  #writes = 0;
  readonly #salt: number;

  constructor(random: Draw) {
    this.#salt = random.integer(0xffff);
  }

  bytes(at: number, length: number): Uint8Array {
    this.#writes++;
    const words = new Uint32Array(Math.ceil(length / 4));
    const perSector = SECTOR_BYTES / 4;
    for (let index = 0; index < words.length; index += perSector) {
      const sector = at / SECTOR_BYTES + index / perSector;
      words.fill(
        (this.#salt << 16) ^ (this.#writes << 13) ^ (sector + 1),
        index,
        index + perSector,
      );
    }
    return new Uint8Array(words.buffer, 0, length);
  }

  /** Whole clusters to compress. */
  clusters(
    { size, clusterSize }: ImageSpec,
    random: Draw,
  ): readonly { readonly offset: number; readonly bytes: Uint8Array }[] {
    const clusters = [];
    for (let offset = 0; offset + clusterSize <= size; offset += clusterSize)
      if (random.chance(0.3)) clusters.push({ offset, bytes: this.bytes(offset, clusterSize) });
    return clusters;
  }
}
