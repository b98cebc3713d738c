import { type ChainLayer, defaultPolicy, factsOf, lockImages, viewOf } from '@downfold/chain';
import type { CaseContext } from '@downfold/compliance';
import { Device } from '@downfold/device';
import { qcow2 } from '@downfold/qcow2';
import { READER, type StorageBackend, WRITER } from '@downfold/storage';
import { byteLength, guestOffset } from '@downfold/units';
import { SECTOR } from '../device/stamp.ts';

const CLUSTERS = [512, 4096, 65_536] as const;
/** Bytes of the disk. */
export const SIZE: number = 192 * 1024;
/** From the bottom; the last one is the active layer. */
export const NAMES: readonly [string, string, string, string] = ['base', 'low', 'top', 'active'];

/** Path of a layer in a directory. */
export function pathIn(directory: string, name: string): string {
  return `${directory}/${name}.qcow2`.replace('//', '/');
}

/** Makes a chain of random images, the lower ones perhaps shorter. */
export async function makeChain(
  backend: StorageBackend,
  directory: string,
  draw: CaseContext,
): Promise<void> {
  const layers: ChainLayer[] = [];
  for (const [index, name] of NAMES.entries()) {
    const path = pathIn(directory, name);
    const size = name === 'active' ? SIZE : SIZE - SECTOR * draw.integer(60);
    const below = NAMES[index - 1];
    const image = await qcow2.create(await backend.create(path, { secret: false }), {
      virtualSize: byteLength(size),
      clusterSize: CLUSTERS[draw.integer(CLUSTERS.length)] as number,
      ...(below === undefined ? {} : { backing: { name: `${below}.qcow2`, format: 'qcow2' } }),
    });
    const fill = index === 0 ? null : viewOf(layers, index - 1);
    for (let sector = 0; sector * SECTOR < size; sector += 1 + draw.integer(50)) {
      const offset = guestOffset(sector * SECTOR);
      const length = SECTOR * Math.min(1 + draw.integer(8), size / SECTOR - sector);
      if (draw.random() < 0.2)
        await image.writeZeroes({ offset, length: byteLength(length) }, { fill });
      else await image.write(offset, new Uint8Array(length).fill(240 + index), { fill });
    }
    await image.flush();
    layers.push({ facts: await factsOf(name, path, image, backend), image });
  }
  for (const { image } of layers) await image[Symbol.asyncDispose]();
  await backend.flushDirectory(directory, 'trial: names');
}

/** `base <-- top <-- active` of 512, 64 and 128 KiB: what base holds past the end of top nobody may ever see. */
export async function makeShortTop(backend: StorageBackend): Promise<void> {
  const KIB = 1024;
  for (const [name, size, held, byte, below] of [
    ['base', 512, 512, 6, null],
    ['top', 64, 32, 7, 'base.qcow2'],
    ['active', 128, 64, 7, 'top.qcow2'],
  ] as const) {
    const storage = await backend.create(pathIn('/', name), { secret: false });
    await using image = await qcow2.create(storage, {
      virtualSize: byteLength(size * KIB),
      backing: below === null ? null : { name: below, format: 'qcow2' },
    });
    await image.write(guestOffset(0), new Uint8Array(held * KIB).fill(byte), { fill: null });
    await image.flush();
  }
  await backend.flushDirectory('/', 'trial: names');
}

/** A disk in use. */
export interface World extends AsyncDisposable {
  readonly device: Device;
}

/** Locks and opens layers, bottom first, as a server does: the last one for writing. */
export async function useDisk(backend: StorageBackend, paths: readonly string[]): Promise<World> {
  const environment = {
    backend,
    formats: [qcow2],
    policy: { ...defaultPolicy, allowMarked: true },
  };
  const wanted = paths.map((path) => ({
    path,
    request: path === paths.at(-1) ? WRITER : READER,
  }));
  const locks = await lockImages(wanted, environment);
  const layers: ChainLayer[] = [];
  for (const path of paths) {
    const mode = path === paths.at(-1) ? 'write' : 'read';
    const image = await qcow2.open(await backend.open(path, mode), { mode });
    layers.push({ facts: await factsOf(path, path, image, backend), image });
  }
  const device = new Device({ layers, locks });
  return {
    device,
    [Symbol.asyncDispose]: async () => {
      await device.close();
      for (const { image } of device.layers) await image[Symbol.asyncDispose]();
      await locks[Symbol.asyncDispose]();
    },
  };
}

/** Opens one more layer on top of a disk, in a section: a snapshot. */
export async function snapshot(
  backend: StorageBackend,
  device: Device,
  path: string,
): Promise<void> {
  const below = device.layers.at(-1) as ChainLayer;
  const image = await qcow2.create(await backend.create(path, { secret: false }), {
    virtualSize: byteLength(device.size),
    backing: { name: below.facts.path, format: 'qcow2' },
  });
  const facts = await factsOf('snapshot', path, image, backend);
  await backend.flushDirectory(path.slice(0, path.lastIndexOf('/')) || '/', 'trial: snapshot');
  await device.drained((section) => section.replace([...section.layers, { facts, image }]));
}
