import { openBackend, type StorageDriver } from '@downfold/storage';
import { MemoryDisk, memoryBackend, memoryBackendDriver } from '@downfold/storage-memory';
import { byteLength, guestOffset } from '@downfold/units';
import { expect, test } from 'vitest';
import { qcow2 } from '../src/index.ts';
import { bytesOn } from './support.ts';

const CLUSTER = 4096;
const plain = { fill: null };

/** A disk on which the next read of data stops before it reads, until it is let go. */
function stoppable(): {
  backend: ReturnType<typeof openBackend>;
  stopNext: () => { readonly stopped: Promise<void>; readonly go: () => void };
} {
  const disk = new MemoryDisk();
  const driver = memoryBackendDriver(disk);
  let gate: { reached: () => void; open: Promise<void> } | null = null;
  const wrap = (file: StorageDriver): StorageDriver =>
    new Proxy(file, {
      get: (target, key) => {
        if (key !== 'read') {
          const member: unknown = Reflect.get(target, key);
          return typeof member === 'function' ? member.bind(target) : member;
        }
        return async (...of: Parameters<StorageDriver['read']>) => {
          const mine = gate;
          gate = null;
          mine?.reached();
          await mine?.open;
          return target.read(...of);
        };
      },
    });
  return {
    backend: openBackend({
      ...driver,
      create: async (path, options) => wrap(await driver.create(path, options)),
    }),
    stopNext: () => {
      const [stopped, open] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
      gate = { reached: stopped.resolve, open: open.promise };
      return { stopped: stopped.promise, go: open.resolve };
    },
  };
}

test('a cluster that is being read is not given to others before the read is over', async () => {
  const { backend, stopNext } = stoppable();
  const storage = await backend.create('/image', { secret: false });
  const virtualSize = byteLength(64 * CLUSTER);
  await using image = await qcow2.create(storage, { virtualSize, clusterSize: CLUSTER });
  await image.write(guestOffset(0), new Uint8Array(CLUSTER).fill(1), plain);
  await image.flush();

  const { stopped, go } = stopNext();
  const target = new Uint8Array(512);
  const reading = image.read(guestOffset(0), target, null);
  await stopped;
  // the cluster is let go, and everything that is free is written over
  await image.deallocate({ offset: guestOffset(0), length: byteLength(CLUSTER) });
  const released = image.flush();
  for (let cluster = 1; cluster < 16; cluster++)
    await image.write(guestOffset(cluster * CLUSTER), new Uint8Array(CLUSTER).fill(9), plain);
  await new Promise((resolve) => setTimeout(resolve, 20));
  for (let cluster = 16; cluster < 32; cluster++)
    await image.write(guestOffset(cluster * CLUSTER), new Uint8Array(CLUSTER).fill(9), plain);
  go();
  await reading;
  // what was there before, or what is there now; never what became of the cluster elsewhere
  expect([0, 1]).toContain(target[0]);
  expect(new Set(target).size).toBe(1);
  await released;
  const { corruptions, leaks } = await image.check();
  expect({ corruptions, leaks }).toEqual({ corruptions: 0, leaks: 0 });
});

test('nor before whoever reads the file by themselves is gone', async () => {
  const disk = new MemoryDisk();
  const storage = await memoryBackend(disk).create('/image', { secret: false });
  const virtualSize = byteLength(64 * CLUSTER);
  await using image = await qcow2.create(storage, { virtualSize, clusterSize: CLUSTER });
  await image.write(guestOffset(0), new Uint8Array(CLUSTER).fill(1), plain);
  await image.flush();
  const whole = { offset: guestOffset(0), length: byteLength(CLUSTER) };
  let host = 0;
  for await (const { hosts } of image.extents(whole)) host = hosts[0] as number;
  const read = (): number => bytesOn(disk, '/image')[host] ?? 0;

  const [asked, left] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  const listening = image.beforeReuse?.(() => {
    asked.resolve();
    return left.promise;
  });
  await image.deallocate(whole);
  const released = image.flush();
  await asked.promise;
  for (let cluster = 1; cluster < 32; cluster++)
    await image.write(guestOffset(cluster * CLUSTER), new Uint8Array(CLUSTER).fill(9), plain);
  expect(read()).toBe(1);
  left.resolve();
  await released;
  expect(read()).not.toBe(1);

  // who does not want to hear of it any more is not waited for
  listening?.[Symbol.dispose]();
  await image.deallocate({ offset: guestOffset(CLUSTER), length: byteLength(CLUSTER) });
  await image.flush();
});

test('with an external data file it promises nothing: what is let go of it is emptied at once', async () => {
  const backend = memoryBackend(new MemoryDisk());
  const storage = await backend.create('/image', { secret: false });
  const file = await backend.create('/data', { secret: false });
  await using image = await qcow2.create(storage, {
    virtualSize: byteLength(64 * CLUSTER),
    clusterSize: CLUSTER,
    dataFile: { storage: file, name: 'data', raw: false },
  });
  expect(image.beforeReuse?.(async () => undefined)).toBe(null);
});
