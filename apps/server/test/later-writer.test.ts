import { existsSync, readFileSync } from 'node:fs';
import { connectNbd } from '@downfold/nbd';
import { describe, expect, it } from 'vitest';
import {
  asDisk,
  Bench,
  type ChainSpec,
  contentOf,
  damage,
  haveTools,
  MIB,
  makeChain,
  type Served,
  serve,
} from './support.ts';

/** Room for a job that has nothing to do with the disk's active layer. */
const SPEC: ChainSpec = { base: [0, 1, 2], mid: [1, 3], top: [2, 4], disk: [4, 5] };

const COMMIT = { command: 'block-commit', 'base-node': '#base.qcow2' };

const JOBS = [
  { what: 'a commit far below', args: { ...COMMIT, 'top-node': '#mid.qcow2' }, leaf: 'disk' },
  { what: 'a commit right below', args: { ...COMMIT, 'top-node': '#top.qcow2' }, leaf: 'disk' },
  { what: 'a commit of it', args: COMMIT, leaf: 'base' },
  { what: 'a stream into it', args: { command: 'block-stream' }, leaf: 'disk' },
];

const exported = (served: Served, id: string, writable: boolean): Promise<unknown> =>
  served.execute('block-export-add', { type: 'nbd', id, 'node-name': 'disk', name: id, writable });

/** Writes to every other MiB of an export, in pieces that cut clusters, and to what is expected of it. */
async function writeAll(bench: Bench, name: string, expected: Buffer): Promise<void> {
  await using client = await connectNbd({ server: { path: bench.file('nbd.sock') }, name });
  for (let at = 1; at < 16; at += 2) {
    const piece = Buffer.alloc(MIB / 2 + 100, `written to ${at}; `);
    await client.write(at * MIB + 300, piece);
    piece.copy(expected, at * MIB + 300);
  }
  await client.flush();
}

async function read(bench: Bench, name: string): Promise<Buffer> {
  await using client = await connectNbd({ server: { path: bench.file('nbd.sock') }, name });
  const disk = Buffer.alloc(16 * MIB);
  await client.read(0, disk);
  return disk;
}

const started = async (bench: Bench): Promise<Served> => {
  await makeChain(bench, SPEC);
  return serve(bench, 'us', ...asDisk(bench, 'disk.qcow2'));
};

describe('who writes to a disk that was used for reading only', () => {
  it.each(JOBS)('by $what, is let in, and the job goes on', async ({ args, leaf }) => {
    await using bench = new Bench();
    const served = await started(bench);
    const expected = contentOf(SPEC);
    const { command, ...more } = args;
    await served.execute(command, { 'job-id': 'j', device: 'disk', speed: MIB, ...more });
    await exported(served, 'e', true);
    await writeAll(bench, 'e', expected);
    expect(await served.execute('query-jobs')).toMatchObject([{ id: 'j', status: 'running' }]);
    await served.execute('block-job-set-speed', { device: 'j', speed: 0 });
    if (leaf === 'base') {
      await served.until('BLOCK_JOB_READY');
      await served.execute('job-complete', { id: 'j' });
    }
    expect(await served.until('null')).toContain('BLOCK_JOB_COMPLETED');
    expect((await read(bench, 'e')).equals(expected)).toBe(true);
    await writeAll(bench, 'e', expected);
    expect((await served.stop()).code).toBe(0);
    if (!haveTools) return;
    await bench.must('qemu-img', 'check', `${leaf}.qcow2`);
    await bench.must('qemu-img', 'convert', '-O', 'raw', `${leaf}.qcow2`, 'seen.raw');
    expect(readFileSync(bench.file('seen.raw')).equals(expected)).toBe(true);
  });

  it('by an export is let in; both see what is written', async () => {
    await using bench = new Bench();
    const served = await started(bench);
    const expected = contentOf(SPEC);
    await exported(served, 'reader', false);
    expect((await read(bench, 'reader')).equals(expected)).toBe(true);
    await exported(served, 'writer', true);
    await writeAll(bench, 'writer', expected);
    expect((await read(bench, 'reader')).equals(expected)).toBe(true);
    expect((await served.stop()).code).toBe(0);
  });
});

it('a damaged image is not written to by a job, although its node is read-only', async () => {
  await using bench = new Bench();
  await makeChain(bench, SPEC);
  damage(bench, 'disk.qcow2');
  const served = await serve(bench, 'us', ...asDisk(bench, 'disk.qcow2', 'read-only=on'));
  const job = { 'job-id': 'j', device: 'disk', 'auto-dismiss': false };
  await served.execute('block-stream', job);
  await served.until('concluded');
  expect(await served.execute('query-jobs')).toMatchObject([
    {
      error: expect.stringMatching(/disk\.qcow2: \d+ errors in its metadata; nothing was written/),
    },
  ]);
});

it('--resume serves a disk for reading whose job would write to a damaged image, and says so', async () => {
  await using bench = new Bench();
  await makeChain(bench, SPEC);
  const before = await bench.disk('disk.qcow2');
  await before.execute('block-commit', {
    ...{ 'job-id': 'j', device: 'disk', speed: 1 },
    ...{ 'base-node': '#base.qcow2', 'top-node': '#top.qcow2' },
  });
  await expect.poll(() => existsSync(bench.file('disk.qcow2.downfold'))).toBe(true);
  await before.stop();
  damage(bench, 'disk.qcow2');
  const { server } = await bench.disk('disk.qcow2', '--read-only', '--resume');
  expect(server.stderr).toMatch(
    /the job could not be gone on with: .*disk\.qcow2: \d+ errors in its metadata; .*x-journal-resume/,
  );
  expect(existsSync(bench.file('disk.qcow2.downfold'))).toBe(true);
});
