import { createHash, randomBytes } from 'node:crypto';
import {
  mkdirSync,
  readdirSync,
  readFileSync,
  truncateSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { perTier } from '@downfold/compliance';
import { describe, expect, it } from 'vitest';
import { Guest, type Manifest } from './foreign/guest.ts';
import { Bench, haveAll, MIB, type Served } from './support.ts';

// A real guest on a disk of ours: Debian's kernel under QEMU, ext4, files with checksums.
const CYCLES = perTier({ quick: 1, ci: 1, long: 20 });
const STRATEGIES = ['copy-down', 'depth-first', 'preserve', 'staged'] as const;

const haveGuest = haveAll(
  ...['qemu-system-x86_64', 'qemu-img', 'apt-get', 'dpkg-deb'],
  ...['/sbin/mke2fs', '/sbin/e2fsck', '/sbin/debugfs'],
);

const md5 = (bytes: Uint8Array): string => createHash('md5').update(bytes).digest('hex');

/** An ext4 of 256 MiB in base.qcow2, which holds files, and a manifest of them. */
async function makeDisk(bench: Bench): Promise<void> {
  const root = bench.file('root');
  mkdirSync(root);
  const manifest = Array.from({ length: 24 }, (_, index) => {
    const bytes = randomBytes(MIB / 2);
    writeFileSync(join(root, `seed-${index}`), bytes);
    return `${md5(bytes)}  seed-${index}\n`;
  });
  writeFileSync(join(root, 'manifest'), manifest.join(''));
  writeFileSync(bench.file('disk.raw'), '');
  truncateSync(bench.file('disk.raw'), 256 * MIB);
  await bench.must(
    '/sbin/mke2fs',
    '-q',
    '-F',
    '-t',
    'ext4',
    '-b',
    '4096',
    '-d',
    'root',
    'disk.raw',
  );
  await bench.must('qemu-img', 'convert', '-f', 'raw', '-O', 'qcow2', 'disk.raw', 'base.qcow2');
}

/** The files of the ext4 in an image and their sums, read without us; e2fsck has nothing to say. */
async function filesOf(bench: Bench, image: string): Promise<Manifest> {
  await bench.must('qemu-img', 'check', '-f', 'qcow2', image);
  await bench.must('qemu-img', 'convert', '-f', 'qcow2', '-O', 'raw', image, 'after.raw');
  await bench.must('/sbin/e2fsck', '-fn', 'after.raw');
  mkdirSync(bench.file('after'));
  await bench.must('/sbin/debugfs', '-R', 'rdump / after', 'after.raw');
  const names = readdirSync(bench.file('after')).filter(
    (name) => name !== 'lost+found' && name !== 'manifest',
  );
  return new Map(names.map((name) => [name, md5(readFileSync(bench.file(`after/${name}`)))]));
}

/** Events of a slow job up to `last`. The guest writes all the while, and much of it before the job gets faster. */
async function beneath(
  guest: Guest,
  served: Served,
  { job, last }: { readonly job: string; readonly last: string },
): Promise<readonly string[]> {
  let isOver = false;
  const events = served.until(last).finally(() => {
    isOver = true;
  });
  events.catch(() => undefined);
  await guest.writes(15);
  expect(isOver).toBe(false);
  await served.execute('block-job-set-speed', { device: job, speed: 2 * MIB });
  while (!isOver) await guest.writes(1);
  return await events;
}

const DONE = ['waiting', 'pending', 'BLOCK_JOB_COMPLETED', 'concluded', 'null'];

/** Puts three snapshots on the disk, commits the two in the middle, and then the disk itself. */
async function foldDown(
  bench: Bench,
  served: Served,
  guest: Guest,
  strategy: string,
): Promise<void> {
  for (const [below, name] of [
    ['disk', 'mid'],
    ['mid', 'top'],
    ['top', 'active'],
  ] as const) {
    await guest.writes(10);
    await served.execute('blockdev-snapshot-sync', {
      device: below,
      'snapshot-file': bench.file(`${name}.qcow2`),
      'snapshot-node-name': name,
    });
  }
  await guest.writes(10);
  await served.execute('block-commit', {
    'job-id': 'below',
    device: 'active',
    'top-node': 'top',
    'base-node': 'disk',
    'x-strategy': strategy,
    speed: MIB / 64,
  });
  expect(await beneath(guest, served, { job: 'below', last: 'null' })).toEqual([
    'created',
    'running',
    ...DONE,
  ]);
  // what was committed stands on base now, and would lose its meaning
  for (const name of ['top', 'mid']) unlinkSync(bench.file(`${name}.qcow2`));
  await served.execute('block-commit', { 'job-id': 'all', device: 'active', speed: MIB / 64 });
  await beneath(guest, served, { job: 'all', last: 'BLOCK_JOB_READY' });
  await guest.writes(10);
  await served.execute('job-complete', { id: 'all' });
  expect(await served.until('null')).toEqual(DONE);
  await guest.writes(10);
}

describe.skipIf(!haveGuest)('a guest whose disk is committed while it writes', () => {
  it.each(Array.from({ length: CYCLES }, (_, cycle) => STRATEGIES[cycle % STRATEGIES.length]))(
    'finds every file as it wrote it: snapshots, %s, then active and pivot',
    async (strategy = 'copy-down') => {
      await using bench = new Bench();
      await makeDisk(bench);
      const served = await bench.disk('base.qcow2');
      const guest = await Guest.boot(bench, 'run/nbd.sock');
      const start = performance.now();
      await foldDown(bench, served, guest, strategy);
      const expected = await guest.stop();
      const seconds = (performance.now() - start) / 1000;
      expect((await served.stop()).code).toBe(0);
      process.stdout.write(
        `guest, ${strategy}: ${guest.rounds} rounds, ${expected.size} files, ${seconds.toFixed(0)} s\n`,
      );
      expect(expected.size).toBeGreaterThan(24);
      const found = await filesOf(bench, 'base.qcow2');
      expect(new Map([...found].sort())).toEqual(new Map([...expected].sort()));
    },
    900_000,
  );
});
