import { type ChainLayer, defaultPolicy, factsOf, viewOf } from '@downfold/chain';
import { type CaseContext, caseContext } from '@downfold/compliance';
import { Device } from '@downfold/device';
import type { Image } from '@downfold/image';
import { qcow2 } from '@downfold/qcow2';
import { raw } from '@downfold/raw';
import type { StorageBackend } from '@downfold/storage';
import { crashStates, MemoryDisk, memoryBackend, record } from '@downfold/storage-memory';
import { byteLength, guestOffset } from '@downfold/units';
import { Guest } from './guest.ts';
import { SECTOR } from './stamp.ts';
import { wrongIn } from './wrong-in.ts';

const CLUSTERS = [512, 4096, 65_536] as const;
const SIZE = 128 * 1024;

/** What a trial saw. */
export interface DeviceTrial {
  readonly states: number;
  readonly problems: readonly string[];
}

/**
 * A guest on `raw <-- qcow2 <-- qcow2`, the lower ones shorter, while a job writes what the guest sees into the middle; then every legal crash
 * state: what was flushed or written through is there, nothing foreign is, and no image is corrupt.
 */
export async function tryDevice(seed: number, requests: number): Promise<DeviceTrial> {
  const draw = caseContext(seed);
  const setup = new MemoryDisk();
  for (const { image } of await newChain(memoryBackend(setup), draw))
    await image[Symbol.asyncDispose]();
  const recording = record(setup);
  const layers = await Promise.all(
    NAMES.map((name) => open(recording.backend, name, name !== 'base.raw')),
  );
  const device = new Device({ layers });
  const old = new Uint8Array(SIZE);
  await device.read(guestOffset(0), old);
  const guest = new Guest({ device, old, draw, now: () => recording.log.length });
  await Promise.all([guest.run(requests), pullIntoMiddle(device, draw)]);
  const problems = [...guest.mistakes];
  const told = new Set<string>();
  let states = 0;
  for (const { disk, at, name } of crashStates(recording, {
    tear: true,
    exhaustive: 3,
    samples: 3,
    seed,
  })) {
    states++;
    const state = `${disk.digest()} ${at}`;
    if (told.has(state)) continue;
    told.add(state);
    const wrong = await wrongOn(disk, at, guest);
    if (wrong !== null) problems.push(`seed ${seed}, ${name}: ${wrong}`);
  }
  return { states, problems };
}

const NAMES = ['base.raw', 'middle.qcow2', 'top.qcow2'] as const;

async function newChain(backend: StorageBackend, draw: CaseContext): Promise<ChainLayer[]> {
  const layers: ChainLayer[] = [];
  for (const [index, name] of NAMES.entries()) {
    const storage = await backend.create(`/${name}`, { secret: false });
    const size = index === 2 ? SIZE : SIZE - SECTOR * draw.integer(100);
    const virtualSize = byteLength(size);
    const clusterSize = CLUSTERS[draw.integer(CLUSTERS.length)] as number;
    const below = NAMES[index - 1];
    const image: Image =
      below === undefined
        ? await raw.create(storage, { virtualSize })
        : await qcow2.create(storage, {
            virtualSize,
            clusterSize,
            backing: { name: below, format: below.split('.')[1] as string },
          });
    for (let sector = 0; sector * SECTOR < size; sector += 1 + draw.integer(40)) {
      const source = new Uint8Array(SECTOR).fill(252 + index);
      const fill = index === 0 ? null : viewOf(layers, index - 1);
      await image.write(guestOffset(sector * SECTOR), source, { fill });
    }
    await image.flush();
    layers.push({ facts: await factsOf(name, `/${name}`, image, backend), image });
  }
  await backend.flushDirectory('/', 'trial: names');
  return layers;
}

async function open(
  backend: StorageBackend,
  name: string,
  isWritten: boolean,
): Promise<ChainLayer> {
  const mode = isWritten ? 'write' : 'read';
  const storage = await backend.open(`/${name}`, mode);
  const image = await (name.endsWith('.raw') ? raw : qcow2).open(storage, { mode });
  return { facts: await factsOf(name, `/${name}`, image, backend), image };
}

/** A job that makes the middle layer hold what it shows, range by range. Nobody sees a difference, and it never flushes. */
async function pullIntoMiddle(device: Device, draw: CaseContext): Promise<void> {
  const size = device.layers[1]?.image.geometry.virtualSize ?? 0;
  for (let at = 0; at < size; at += SECTOR * (8 + draw.integer(64))) {
    const length = byteLength(Math.min(SECTOR * 8, size - at));
    await device.holding({ offset: guestOffset(at), length }, 'changes', async (layers) => {
      const bytes = new Uint8Array(length);
      await viewOf(layers, 1)(guestOffset(at), bytes);
      await layers[1]?.image.write(guestOffset(at), bytes, { fill: viewOf(layers, 0) });
    });
  }
}

function wrongOn(disk: MemoryDisk, at: number, guest: Guest): Promise<string | null> {
  const environment = {
    backend: memoryBackend(disk),
    formats: [qcow2, raw],
    policy: defaultPolicy,
  };
  return wrongIn(environment, { path: '/top.qcow2', size: SIZE }, at, guest);
}
