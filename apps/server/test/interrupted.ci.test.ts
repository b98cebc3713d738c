import { appendFileSync, existsSync, readFileSync } from 'node:fs';
import { crc32 } from 'node:zlib';
import { connectNbd } from '@downfold/nbd';
import { connectQmp } from '@downfold/qmp';
import { describe, expect, it } from 'vitest';
import { Bench, contentOf, haveTools, MIB, makeChain, Served } from './support.ts';

async function diskOf(bench: Bench): Promise<Buffer> {
  await using client = await connectNbd({ server: { path: bench.file('run/nbd.sock') }, name: '' });
  const disk = Buffer.alloc(client.info.size);
  for (let at = 0; at < disk.length; at += MIB) await client.read(at, disk.subarray(at, at + MIB));
  return disk;
}

/** Writes a MiB, durably. */
async function write(
  bench: Bench,
  mebibyte: number,
  byte: number,
  expected: Buffer,
): Promise<void> {
  await using client = await connectNbd({ server: { path: bench.file('run/nbd.sock') }, name: '' });
  await client.write(mebibyte * MIB, Buffer.alloc(MIB, byte));
  await client.flush();
  expected.fill(byte, mebibyte * MIB, (mebibyte + 1) * MIB);
}

/** Waits until no job is left. */
async function idle(served: Served): Promise<void> {
  await expect.poll(() => served.execute('query-jobs'), { timeout: 10_000 }).toEqual([]);
}

const COMMIT = {
  'job-id': 'j',
  device: 'disk',
  'top-node': '#mid.qcow2',
  'base-node': '#base.qcow2',
};
const JOURNAL = 'top.qcow2.downfold';

describe('a job that is interrupted', () => {
  it.each(['SIGTERM', 'SIGKILL'] as const)(
    'by %s is found by the next start, which goes on with it when told to',
    async (signal) => {
      await using bench = new Bench();
      await makeChain(bench);
      const expected = contentOf();
      const served = await bench.disk('top.qcow2');
      await served.execute('block-commit', { ...COMMIT, speed: MIB });
      await write(bench, 9, 1, expected);
      await expect
        .poll(() => served.execute('query-jobs'))
        .toMatchObject([{ 'current-progress': expect.toSatisfy((done) => done > 0) }]);
      served.server.kill(signal);
      const { code } = await served.server.ended;
      expect(code).toBe(signal === 'SIGTERM' ? 0 : null);
      expect(existsSync(bench.file(JOURNAL))).toBe(true);

      const without = await bench.disk('top.qcow2');
      expect(without.server.stderr).toMatch(
        /top\.qcow2: job \S+ \(commit, copy-down\) was interrupted/,
      );
      expect((await diskOf(bench)).equals(expected)).toBe(true);
      await write(bench, 1, 2, expected);
      await without.stop();
      expect(existsSync(bench.file(JOURNAL))).toBe(true);

      const again = await bench.disk('top.qcow2', '--resume');
      await write(bench, 2, 3, expected);
      await idle(again);
      expect(existsSync(bench.file(JOURNAL))).toBe(false);
      expect((await diskOf(bench)).equals(expected)).toBe(true);
      await again.stop();
      const last = await bench.disk('top.qcow2');
      const nodes =
        await last.execute<{ readonly 'node-name': string }[]>('query-named-block-nodes');
      expect(nodes.map((node) => node['node-name'])).not.toContain('#mid.qcow2');
      expect((await diskOf(bench)).equals(expected)).toBe(true);
    },
  );

  it('while it was given up is given up by the next start, when told to go on', async () => {
    await using bench = new Bench();
    await makeChain(bench);
    const expected = contentOf();
    const served = await bench.disk('top.qcow2');
    await served.execute('block-commit', { ...COMMIT, speed: MIB });
    await expect
      .poll(() => served.execute('query-jobs'))
      .toMatchObject([{ 'current-progress': expect.toSatisfy((done) => done > 0) }]);
    await served.kill();
    const lines = readFileSync(bench.file(JOURNAL), 'latin1').trimEnd().split('\n');
    const record = `${lines.length} {"type":"ABORT"}`;
    const sum = crc32(record).toString(16).padStart(8, '0');
    appendFileSync(bench.file(JOURNAL), `${sum} ${record}\n`);

    const without = await bench.disk('top.qcow2');
    expect(without.server.stderr).toMatch(/interrupted while it was given up/);
    await without.stop();
    const again = await bench.disk('top.qcow2', '--resume');
    await again.server.said(/giving the job up is finished/);
    expect(existsSync(bench.file(JOURNAL))).toBe(false);
    expect((await diskOf(bench)).equals(expected)).toBe(true);
    await again.stop();
  });

  it('of the active layer, killed while it is ready: top is the disk, and the job begins again', async () => {
    await using bench = new Bench();
    await makeChain(bench);
    const expected = contentOf();
    const served = await bench.disk('top.qcow2');
    await served.execute('block-commit', { 'job-id': 'j', device: 'disk' });
    await served.until('BLOCK_JOB_READY');
    await write(bench, 4, 5, expected);
    await served.kill();
    const again = await bench.disk('top.qcow2', '--resume');
    expect((await diskOf(bench)).equals(expected)).toBe(true);
    await expect
      .poll(() => again.execute('query-jobs'), { timeout: 10_000 })
      .toMatchObject([{ status: 'ready' }]);
    const [{ id }] = await again.execute<[{ readonly id: string }]>('query-jobs');
    await write(bench, 5, 6, expected);
    await again.execute('job-complete', { id });
    await idle(again);
    await again.kill();
    const last = await bench.disk('top.qcow2');
    expect(last.server.stderr).toMatch(/serving '.*base\.qcow2'/);
    expect((await diskOf(bench)).equals(expected)).toBe(true);
  });
});

/** As the options of qemu-storage-daemon have it: base may be written, and is opened so by QEMU. */
const READ_WRITE = [
  ...['--blockdev', 'qcow2,node-name=base,file.driver=file,file.filename=base.qcow2'],
  ...['--blockdev', 'qcow2,node-name=mid,file.driver=file,file.filename=mid.qcow2,backing=base'],
  ...['--blockdev', 'qcow2,node-name=disk,file.driver=file,file.filename=top.qcow2,backing=mid'],
  ...['--nbd-server', 'addr.type=unix,addr.path=run/nbd.sock'],
  ...['--export', 'type=nbd,id=e0,node-name=disk,name=,writable=on'],
  ...['--chardev', 'socket,id=c0,path=run/qmp.sock,server=on,wait=off', '--monitor', 'c0'],
];

// where QEMU loses what it had acknowledged: docs/crash-safety.md
describe('once a job has completed, what a guest flushed afterwards outlives a kill', () => {
  const stream = { 'job-id': 'j', device: 'disk' };
  it.each([
    ['block-commit', { ...stream, 'top-node': 'mid', 'base-node': 'base' }],
    ['block-stream', { ...stream, 'base-node': 'base' }],
    ['block-stream', stream],
  ])('%s %o, base opened read-write', async (command, args) => {
    await using bench = new Bench();
    await makeChain(bench);
    const expected = contentOf();
    const server = await bench.serve(...READ_WRITE);
    const served = new Served(server, await connectQmp(bench.file('run/qmp.sock')));
    await served.execute(command, args);
    await served.until('BLOCK_JOB_COMPLETED');
    // a MiB that base had before the job, one that it got, and one that nobody has
    for (const mebibyte of [3, 4, 12]) await write(bench, mebibyte, 4, expected);
    await served.kill();
    if (haveTools) {
      // before anybody else touches the files
      await bench.must('qemu-img', 'convert', '-f', 'qcow2', '-O', 'raw', 'top.qcow2', 'left.raw');
      expect(readFileSync(bench.file('left.raw')).equals(expected)).toBe(true);
      for (const name of ['base.qcow2', 'top.qcow2']) await bench.must('qemu-img', 'check', name);
    }
    await bench.disk('top.qcow2');
    expect((await diskOf(bench)).equals(expected)).toBe(true);
  });
});

describe('a job that is cancelled', () => {
  it.each([
    ['while it copies', { speed: MIB }, 'running'],
    ['while it waits to be finalized', { 'auto-finalize': false }, 'BLOCK_JOB_PENDING'],
  ])('%s leaves the links as they were, and no journal', async (_when, options, at) => {
    await using bench = new Bench();
    await makeChain(bench);
    const expected = contentOf();
    const served = await bench.disk('top.qcow2');
    await served.execute('block-commit', { ...COMMIT, ...options });
    await served.until(at);
    await write(bench, 10, 7, expected);
    await served.execute('job-cancel', { id: 'j' });
    expect(await served.until('null')).toEqual([
      'aborting',
      'BLOCK_JOB_CANCELLED',
      'concluded',
      'null',
    ]);
    expect(existsSync(bench.file(JOURNAL))).toBe(false);
    expect((await diskOf(bench)).equals(expected)).toBe(true);
    await served.stop();
    const again = await bench.disk('top.qcow2');
    const nodes =
      await again.execute<{ readonly 'node-name': string }[]>('query-named-block-nodes');
    expect(nodes.map((node) => node['node-name'])).toContain('#mid.qcow2');
    expect((await diskOf(bench)).equals(expected)).toBe(true);
  });

  it('paused stands still, and goes on', async () => {
    await using bench = new Bench();
    await makeChain(bench);
    const served = await bench.disk('top.qcow2');
    await served.execute('block-commit', { ...COMMIT, speed: MIB });
    await served.execute('job-pause', { id: 'j' });
    await served.until('paused');
    await served.execute('block-job-set-speed', { device: 'j', speed: 0 });
    const [before] = await served.execute<[object]>('query-jobs');
    await new Promise((resolve) => setTimeout(resolve, 100));
    expect(await served.execute('query-jobs')).toEqual([before]);
    await served.execute('job-resume', { id: 'j' });
    expect(await served.until('null')).toContain('BLOCK_JOB_COMPLETED');
    expect((await diskOf(bench)).equals(contentOf())).toBe(true);
  });
});
