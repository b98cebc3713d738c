import { deflateRawSync, zstdCompressSync } from 'node:zlib';
import type { ImageError } from '@downfold/image';
import { MemoryDisk, memoryBackend } from '@downfold/storage-memory';
import { byteLength, guestOffset, hostOffset } from '@downfold/units';
import { expect, test } from 'vitest';
import { Decoder } from '../src/decoder.ts';
import { qcow2 } from '../src/index.ts';
import { decompressInto, SLACK_BYTES } from '../src/inflater.ts';
import type { Packed } from '../src/unpack.ts';

const CLUSTER = 4096;
const COUNT = 64;

/** Clusters as an image holds them: padded with what comes next. */
function packed(zstd: boolean, spoilt: number | null = null): Packed {
  const parts = Array.from({ length: COUNT }, (_, index) => {
    const cluster = new Uint8Array(CLUSTER).map((_byte, at) => (at * index) % 251);
    const bytes = zstd ? zstdCompressSync(cluster) : deflateRawSync(cluster, { windowBits: 12 });
    return index === spoilt ? new Uint8Array(bytes.length).fill(0xff) : new Uint8Array(bytes);
  });
  const starts = new Float64Array(COUNT);
  for (let index = 1; index < COUNT; index++)
    starts[index] = (starts[index - 1] as number) + (parts[index - 1]?.length ?? 0);
  return {
    packed: new Uint8Array(Buffer.concat([...parts, new Uint8Array(512)])),
    starts,
    lengths: Float64Array.from(parts, ({ length }) => length + 512),
    zstd,
    clusterSize: CLUSTER,
    bytes: new Uint8Array(new SharedArrayBuffer(COUNT * CLUSTER + SLACK_BYTES)),
  };
}

const isSame = (one: Uint8Array, other: Uint8Array): boolean => Buffer.compare(one, other) === 0;

test('threads decompress to what no thread does', async () => {
  const [here, threads] = [new Decoder(0), new Decoder(2, 0)];
  const alone = packed(false);
  expect(await here.decode(alone)).toBeNull();
  expect(alone.bytes[CLUSTER + 2]).toBe(2);
  const jobs = Array.from({ length: 8 }, () => packed(false));
  for (const bad of await Promise.all(jobs.map((job) => threads.decode(job))))
    expect(bad).toBeNull();
  expect(threads.threads).toBe(2);
  for (const { bytes } of jobs) expect(isSame(bytes, alone.bytes)).toBe(true);
  await threads.close();
  expect([here.threads, threads.threads]).toEqual([0, 0]);
});

test.each([false, true])(
  'threads say which cluster is bad, as no thread does (zstd: %s)',
  async (zstd) => {
    const [here, threads] = [new Decoder(0), new Decoder(1, 0)];
    const alone = await here.decode(packed(zstd, 41));
    expect(alone?.index).toBe(41);
    expect(await threads.decode(packed(zstd, 41))).toEqual(alone);
    // and goes on
    expect(await threads.decode(packed(zstd))).toBeNull();
    await threads.close();
  },
);

test('memory is of as many jobs as may be under way, and used again', async () => {
  const decoder = new Decoder(0);
  const seen = new Set<unknown>();
  let [now, most] = [0, 0];
  await Promise.all(
    Array.from({ length: 20 }, () =>
      decoder.withMemory(100, 200, async ({ packed, bytes }) => {
        seen.add(bytes.buffer);
        expect([packed.length, bytes.length]).toEqual([100, 200]);
        most = Math.max(most, ++now);
        await new Promise((resolve) => setImmediate(resolve));
        now -= 1;
      }),
    ),
  );
  expect([most, seen.size]).toEqual([4, 4]);
});

test.each([false, true])(
  'what is used of Node without its documents is there, and does the same (zstd: %s)',
  (zstd) => {
    const { packed: all, starts, lengths, bytes } = packed(zstd);
    const one = all.subarray(starts[7], (starts[7] as number) + (lengths[7] as number));
    expect(decompressInto(one, zstd, bytes, CLUSTER, CLUSTER)).toBe(true);
    expect(bytes[CLUSTER + 3]).toBe(21);
    for (const size of [CLUSTER - 1, CLUSTER + 1, CLUSTER - SLACK_BYTES])
      expect(decompressInto(one, zstd, bytes, 0, size)).toBe(false);
    expect(decompressInto(new Uint8Array(600).fill(0xff), zstd, bytes, 0, CLUSTER)).toBe(false);
    expect(decompressInto(one, zstd, bytes, 0, CLUSTER)).toBe(true);
  },
);

test('what few bytes need starts no thread, nor does zstd', async () => {
  const decoder = new Decoder(2, 2 * COUNT * CLUSTER);
  for (let turn = 0; turn < 2; turn++) await decoder.decode(packed(false));
  expect(decoder.threads).toBe(0);
  await decoder.decode(packed(true));
  expect(decoder.threads).toBe(0);
  await decoder.decode(packed(false));
  expect(decoder.threads).toBe(1);
  await decoder.close();
});

test('a bad cluster in a long run is named, with the image and its byte', async () => {
  const disk = new MemoryDisk();
  const storage = await memoryBackend(disk).create('/image', { secret: false });
  await using image = await qcow2.create(storage, {
    virtualSize: byteLength(COUNT * CLUSTER),
    clusterSize: CLUSTER,
  });
  const source = new Uint8Array(COUNT * CLUSTER).map((_, at) => (at >>> 7) % 251);
  await image.writeCompressed(guestOffset(0), source);
  await image.flush();
  const target = new Uint8Array(source.length);
  await image.read(guestOffset(0), target, null);
  expect(isSame(target, source)).toBe(true);
  const at = (await storage.length()) - 512;
  await storage.write(hostOffset(at), new Uint8Array(512).fill(0xff));
  const failure: unknown = await image.read(guestOffset(0), target, null).catch((error) => error);
  expect(failure).toMatchObject({ code: 'IMAGE_CORRUPT', details: { image: '/image' } });
  const { offset } = (failure as ImageError).details;
  expect(offset).toBeGreaterThan(at - CLUSTER);
  expect(offset).toBeLessThan(at + 512);
});
