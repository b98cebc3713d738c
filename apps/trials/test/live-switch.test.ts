import { AsyncLocalStorage } from 'node:async_hooks';
import { setImmediate as turn } from 'node:timers/promises';
import { defaultPolicy, openChain, viewOf } from '@downfold/chain';
import type { LiveDisk } from '@downfold/commit';
import { caseContext } from '@downfold/compliance';
import type { Device } from '@downfold/device';
import type { Image } from '@downfold/image';
import { qcow2 } from '@downfold/qcow2';
import type { StorageBackend } from '@downfold/storage';
import { crashStates, MemoryDisk, memoryBackend, record } from '@downfold/storage-memory';
import { byteLength, guestOffset } from '@downfold/units';
import { describe, expect, test } from 'vitest';
import { engineOn } from '../src/crash/case.ts';
import { changed } from '../src/live/changed.ts';
import { STRATEGIES } from '../src/live/trial.ts';
import {
  makeChain,
  makeShortTop,
  NAMES,
  pathIn,
  SIZE,
  snapshot,
  useDisk,
} from '../src/live/world.ts';

const [BASE, TOP, ACTIVE, SNAPSHOT] = ['base', 'top', 'active', 'snapshot'].map((name) =>
  pathIn('/', name),
) as [string, string, string, string];
const KIB = 1024;

async function commit(
  backend: StorageBackend,
  live: LiveDisk,
  beforeSwitch: () => Promise<void> = async () => undefined,
): Promise<void> {
  const engine = engineOn(backend, 1, STRATEGIES);
  const request = { file: ACTIVE, format: 'qcow2', strategy: 'copy-down', base: BASE, top: TOP };
  const plan = await engine.plan(request, { live, estimate: false });
  await engine.run(plan, { live, beforeSwitch });
}

/** What the disk shows past the end of top, in every crash state of a commit during which it grew: the states in which that is not zeros. */
async function shownPastTop(
  sabotage: (disk: Device) => LiveDisk,
): Promise<{ readonly states: number; readonly wrong: readonly string[] }> {
  const setup = new MemoryDisk();
  await makeShortTop(memoryBackend(setup));
  const recording = record(setup);
  {
    await using world = await useDisk(recording.backend, [BASE, TOP, ACTIVE]);
    const { device } = world;
    await commit(recording.backend, sabotage(device), () => device.resize(byteLength(256 * KIB)));
  }
  const wrong: string[] = [];
  let states = 0;
  for (const { disk, name } of crashStates(recording, { tear: true, exhaustive: 4, seed: 1 })) {
    states++;
    const environment = { backend: memoryBackend(disk), formats: [qcow2], policy: defaultPolicy };
    await using chain = await openChain(ACTIVE, 'qcow2', environment);
    const size = chain.layers.at(-1)?.image.geometry.virtualSize ?? 0;
    const shown = new Uint8Array(size - 64 * KIB);
    await viewOf(chain.layers, chain.layers.length - 1)(guestOffset(64 * KIB), shown);
    if (shown.some((byte) => byte !== 0)) wrong.push(name);
  }
  return { states, wrong };
}

describe('a reference that is switched under a disk in use', () => {
  test('is so after what has to hide base is durable', async () => {
    const { states, wrong } = await shownPastTop((disk) => disk);
    expect(states).toBeGreaterThan(50);
    expect(wrong).toEqual([]);
  });

  test('found: the active layer is not flushed before', async () => {
    const { wrong } = await shownPastTop((disk) =>
      changed(disk, {
        flush: async () => undefined,
        drained: (work) =>
          disk.drained((section) =>
            work({
              get layers() {
                return section.layers;
              },
              replace: (layers) => section.replace(layers),
              flush: async () => undefined,
              fail: (cause) => section.fail(cause),
            }),
          ),
      }),
    );
    expect(wrong).not.toEqual([]);
  });

  test('is so while no request runs, and a snapshot that comes meanwhile stays on top', async () => {
    const backend = memoryBackend(new MemoryDisk());
    await makeChain(backend, '/', caseContext(1));
    await using world = await useDisk(
      backend,
      NAMES.map((name) => pathIn('/', name)),
    );
    const { device } = world;
    const before = new Uint8Array(SIZE);
    await device.read(guestOffset(0), before);
    const active = device.layers.at(-1)?.image as Image;
    const order: string[] = [];
    const late: Promise<void>[] = [];
    const setBacking = active.setBacking.bind(active);
    // requests of a guest, not of the job
    const outside = AsyncLocalStorage.snapshot();
    const guest = async (): Promise<void> => {
      await device.write(guestOffset(0), Buffer.alloc(512, 5));
      order.push('written');
    };
    const user = async (): Promise<void> => {
      await snapshot(backend, device, SNAPSHOT);
      order.push('snapshot');
    };
    active.setBacking = async (reference) => {
      late.push(outside(guest), outside(user));
      for (let turns = 0; turns < 100; turns++) await turn();
      await setBacking(reference);
      order.push('switched');
    };
    await commit(backend, device);
    await Promise.all(late);
    expect(order).toEqual(['switched', 'written', 'snapshot']);
    expect(device.layers.map(({ image }) => image.label)).toEqual([BASE, ACTIVE, SNAPSHOT]);
    const after = new Uint8Array(SIZE);
    await device.read(guestOffset(0), after);
    before.fill(5, 0, 512);
    expect(Buffer.compare(after, before)).toBe(0);
  });
});
