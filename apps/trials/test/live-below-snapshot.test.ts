import { caseContext } from '@downfold/compliance';
import type { Device } from '@downfold/device';
import { MemoryDisk, memoryBackend } from '@downfold/storage-memory';
import { guestOffset } from '@downfold/units';
import { expect, test } from 'vitest';
import { engineOn } from '../src/crash/case.ts';
import { STRATEGIES } from '../src/live/trial.ts';
import { makeChain, NAMES, pathIn, SIZE, snapshot, useDisk } from '../src/live/world.ts';

const [ACTIVE, FIRST, SECOND] = ['active', 'first', 'second'].map((name) => pathIn('/', name)) as [
  string,
  string,
  string,
];

async function shown(device: Device): Promise<Buffer> {
  const bytes = Buffer.alloc(SIZE);
  await device.read(guestOffset(0), bytes);
  return bytes;
}

/** Writes the part of the disk below `end`, with gaps: each layer above hides less of what is below. */
async function write(device: Device, byte: number, end: number): Promise<void> {
  for (let at = byte * 512; at + 3072 <= end; at += 8192)
    await device.write(guestOffset(at), Buffer.alloc(3072, byte));
}

// A snapshot during a job leaves what was the active layer open for writing: the guest does not write to it any more, a later job may.
test.each(['copy-down', 'depth-first', 'preserve', 'staged'])(
  '%s into what was the active layer before a snapshot commits also where that holds data',
  async (strategy) => {
    const backend = memoryBackend(new MemoryDisk());
    await makeChain(backend, '/', caseContext(1));
    await using world = await useDisk(
      backend,
      NAMES.map((name) => pathIn('/', name)),
    );
    const { device } = world;
    await write(device, 1, SIZE);
    await snapshot(backend, device, FIRST);
    await write(device, 2, 128 * 1024);
    await snapshot(backend, device, SECOND);
    await write(device, 3, 64 * 1024);
    expect(device.layers.map(({ image }) => image.writable).slice(-3)).toEqual([true, true, true]);
    const before = await shown(device);
    const engine = engineOn(backend, 1, STRATEGIES);
    const request = { file: SECOND, format: 'qcow2', strategy, base: ACTIVE, top: FIRST };
    const plan = await engine.plan(request, { live: device, estimate: false });
    await engine.run(plan, { live: device });
    expect(device.layers.map(({ image }) => image.label).slice(-2)).toEqual([ACTIVE, SECOND]);
    expect(Buffer.compare(await shown(device), before)).toBe(0);
  },
);
