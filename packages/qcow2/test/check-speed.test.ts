import { execFileSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { currentTier, perTier } from '@downfold/compliance';
import { MemoryDisk, memoryBackend } from '@downfold/storage-memory';
import { byteLength } from '@downfold/units';
import { describe, expect, test } from 'vitest';
import { qcow2 } from '../src/index.ts';
import { HIGH_COPIED } from '../src/structures.ts';
import { Craft } from './craft.ts';
import { haveQemu, openOn, run, scratch } from './support.ts';

const KIB = 1024;
const GIB = 2 ** 30;
const CLUSTER = 64 * KIB;

/** A disk whose every cluster is mapped, without their data: `preallocation=metadata`. */
async function fullyMapped(size: number): Promise<MemoryDisk> {
  const disk = new MemoryDisk();
  const storage = await memoryBackend(disk).create('/image', { secret: false });
  await using _ = await qcow2.create(storage, { virtualSize: byteLength(size) });
  const craft = new Craft(disk, '/image');
  const { l2Entries, refcountsPerBlock } = craft.geometry;
  const { l1TableOffset, refcountTableOffset } = craft.header;
  const clusters = size / CLUSTER;
  const tables = Math.ceil(clusters / l2Entries);
  const first = disk.fileOf(disk.inodeOf('/image')).length / CLUSTER;
  const blocks = Math.ceil((first + tables + clusters) / (refcountsPerBlock - 1));
  const firstData = first + tables + blocks - 1;
  const table = Buffer.alloc(CLUSTER);
  for (let index = 0; index < tables; index++) {
    const at = (first + index) * CLUSTER;
    for (let entry = 0; entry < l2Entries; entry++) {
      const host = (firstData + index * l2Entries + entry) * CLUSTER;
      table.writeUInt32BE((HIGH_COPIED | Math.floor(host / 2 ** 32)) >>> 0, 8 * entry);
      table.writeUInt32BE(host % 2 ** 32, 8 * entry + 4);
    }
    craft.set(at, table);
    craft.setOffset(l1TableOffset + 8 * index, at);
    craft.setWord(l1TableOffset + 8 * index, HIGH_COPIED | Math.floor(at / 2 ** 32));
  }
  const end = firstData + clusters;
  for (let index = 0; index < blocks; index++) {
    const counted = Math.min(refcountsPerBlock, end - index * refcountsPerBlock);
    // the first block is where it was; the others follow the tables
    const at =
      index === 0 ? craft.word(refcountTableOffset + 4) : (first + tables + index - 1) * CLUSTER;
    const counts = Buffer.alloc(CLUSTER);
    for (let entry = 0; entry < counted; entry++) counts.writeUInt16BE(1, 2 * entry);
    craft.set(at, counts);
    craft.setOffset(refcountTableOffset + 8 * index, at);
  }
  disk.fileOf(disk.inodeOf('/image')).setLength(end * CLUSTER);
  return disk;
}

describe('a check', () => {
  const size = perTier({ quick: 16, ci: 64, long: 256 }) * GIB;
  // measured: 0.03 to 0.25 microseconds
  const secondsPerCluster = 1e-6;
  const bytesPerCluster = 8;

  test(`of ${size / GIB} GiB of mapped clusters takes less than a microsecond and 8 bytes for each`, async () => {
    const disk = await fullyMapped(size);
    await using image = await openOn(disk, '/image', 'read');
    const cpu = process.cpuUsage();
    const heap = (): number => process.memoryUsage().arrayBuffers + process.memoryUsage().heapUsed;
    const before = heap();
    let most = 0;
    const watch = setInterval(() => {
      most = Math.max(most, heap() - before);
    });
    const report = await image.check();
    clearInterval(watch);
    const { user, system } = process.cpuUsage(cpu);
    const clusters = size / CLUSTER;
    expect(report).toMatchObject({ corruptions: 0, leaks: 0, allocatedClusters: clusters });
    expect((user + system) / 1e6).toBeLessThan(clusters * secondsPerCluster);
    expect(most).toBeLessThan(clusters * bytesPerCluster + 32 * KIB * KIB);
    console.log(
      `check of ${clusters} clusters: ${((user + system) / 1000).toFixed(0)} ms of processor time`,
    );
  });
});

interface Took {
  readonly report: { readonly corruptions: number; readonly allocatedClusters: number } | null;
  readonly seconds: number;
  readonly peakMebibytes: number;
}

describe.skipIf(!haveQemu || currentTier() !== 'long')('1 TiB, 16 million clusters', () => {
  test('a check is no slower than qemu-img check, in less than 300 MiB; opening for writing takes less than 150 MiB', () => {
    using dir = scratch();
    const path = dir.path('image.qcow2');
    run('qemu-img', 'create', '-q', '-f', 'qcow2', '-o', 'preallocation=metadata', path, '1T');
    const child = (what: string): Took =>
      JSON.parse(
        execFileSync(
          process.execPath,
          [
            '--conditions=@downfold/source',
            fileURLToPath(new URL('check-child.ts', import.meta.url)),
            path,
            what,
          ],
          { encoding: 'utf8' },
        ),
      ) as Took;
    const ratios: number[] = [];
    for (let pair = 0; pair < 5; pair++) {
      let started = performance.now();
      const took = child('check');
      const ours = performance.now() - started;
      expect(took.report).toMatchObject({ corruptions: 0, allocatedClusters: 2 ** 24 });
      expect(took.peakMebibytes).toBeLessThan(300);
      started = performance.now();
      run('qemu-img', 'check', '-q', path);
      const theirs = performance.now() - started;
      ratios.push(ours / theirs);
      console.log(
        `pair ${pair + 1}: ${ours.toFixed(0)} ms (of that the check ${(took.seconds * 1000).toFixed(0)} ms), ` +
          `QEMU ${theirs.toFixed(0)} ms; ${took.peakMebibytes.toFixed(0)} MiB`,
      );
    }
    const median = ratios.sort((a, b) => a - b)[2] as number;
    console.log(`whole processes, median of 5: ${median.toFixed(2)} of the time of qemu-img check`);
    expect(median).toBeLessThan(1.2);
    const { peakMebibytes } = child('write');
    console.log(`open for writing: ${peakMebibytes.toFixed(0)} MiB`);
    expect(peakMebibytes).toBeLessThan(150);
  });
});
