import { copyFileSync } from 'node:fs';
import { qcow2 } from '@downfold/qcow2';
import { fileBackend } from '@downfold/storage-file';
import { byteLength } from '@downfold/units';
import { describe, expect, it } from 'vitest';
import { Bench, type Bytes, haveAll, LOCKS, lockedBytes, MIB, type Served } from './support.ts';

const haveTools = haveAll('qemu-img', 'qemu-io', 'perl');

const ALLOW = '--allow-data-file';
/** Bottom first, each with its data file; that of base is raw: the file alone is the disk. */
const DATA = { base: 'base.raw', mid: 'mid.data', top: null, active: 'active.data' } as const;
type Name = keyof typeof DATA;
const NAMES = Object.keys(DATA) as readonly Name[];

/** The chain, with data of every layer, and `copy.raw`, which is what it shows. */
async function chain(bench: Bench): Promise<void> {
  for (const [index, name] of NAMES.entries()) {
    const backend = fileBackend();
    const below = NAMES[index - 1];
    const [image, data] = [bench.file(`${name}.qcow2`), DATA[name]];
    await using _made = await qcow2.create(await backend.create(image, { secret: false }), {
      virtualSize: byteLength(8 * MIB),
      backing: below === undefined ? null : { name: `${below}.qcow2`, format: 'qcow2' },
      ...(data === null
        ? {}
        : {
            dataFile: {
              name: data,
              raw: below === undefined,
              storage: await backend.create(bench.file(data), { secret: false }),
            },
          }),
    });
  }
  const io = ['write -P 1 0 4M', 'write -P 2 1M 2M', 'write -P 3 2M 1M', 'write -P 4 5M 70000'];
  for (const [index, what] of io.entries())
    await bench.must('qemu-io', '-f', 'qcow2', '-c', what, `${NAMES[index]}.qcow2`);
  await bench.must('qemu-img', 'convert', '-O', 'raw', 'active.qcow2', 'copy.raw');
}

/** As a guest of the server; the same in the copy. */
async function guest(bench: Bench, what: string): Promise<void> {
  await bench.must('qemu-io', '-f', 'raw', '-c', what, '-c', 'flush', bench.uri);
  await bench.must('qemu-io', '-f', 'raw', '-c', what, 'copy.raw');
}

/** QEMU reads of an image what the copy holds, and finds nothing wrong with it. */
async function shows(bench: Bench, ...images: readonly string[]): Promise<void> {
  for (const image of images) {
    const format = image.endsWith('.qcow2') ? 'qcow2' : 'raw';
    await bench.must('qemu-img', 'compare', '-f', format, '-F', 'raw', image, 'copy.raw');
    if (format === 'qcow2') await bench.must('qemu-img', 'check', '-q', image);
  }
}

async function locks(bench: Bench): Promise<Readonly<Record<string, Bytes>>> {
  const files = Object.values(DATA).filter((file) => file !== null);
  return Object.fromEntries(
    await Promise.all(files.map(async (file) => [file, await lockedBytes(bench, file)])),
  );
}

const { NONE, READER, WRITER } = LOCKS;
const IN_USE = { 'base.raw': READER, 'mid.data': READER, 'active.data': WRITER };
const COMMIT = { 'job-id': 'j', device: 'disk', speed: MIB };

async function finish(served: Served): Promise<void> {
  await served.execute('block-job-set-speed', { device: 'j', speed: 0 });
  await served.until('null');
}

describe.skipIf(!haveTools)('images with external data files', () => {
  it('are refused by name unless they are allowed', async () => {
    await using bench = new Bench();
    await chain(bench);
    const refused = await bench.start(['active.qcow2', '--qmp', 'unix:run/qmp.sock']).ended;
    expect(refused).toMatchObject({
      code: 1,
      stderr: expect.stringMatching(/active\.data.*allow-data-file/),
    });
    expect(await locks(bench)).toEqual({ 'base.raw': NONE, 'mid.data': NONE, 'active.data': NONE });
  });

  it('are served, committed below and streamed into; their files are locked as they are used', async () => {
    await using bench = new Bench();
    await chain(bench);
    const served = await bench.disk('active.qcow2', ALLOW);
    await guest(bench, 'write -P 5 3M 100k');
    expect(await locks(bench)).toEqual(IN_USE);
    const ends = { 'top-node': '#top.qcow2', 'base-node': '#base.qcow2' };
    await served.execute('block-commit', { ...COMMIT, ...ends });
    await guest(bench, 'write -P 6 1500k 700k');
    expect(await locks(bench)).toEqual({ ...IN_USE, 'base.raw': WRITER });
    await finish(served);
    expect(await locks(bench)).toEqual({ ...IN_USE, 'mid.data': NONE });
    await guest(bench, 'write -P 7 7M 5000');
    await served.execute('block-stream', COMMIT);
    await finish(served);
    expect(await locks(bench)).toEqual({ ...IN_USE, 'base.raw': NONE, 'mid.data': NONE });
    expect((await served.stop()).code).toBe(0);
    expect(await locks(bench)).toEqual({ 'base.raw': NONE, 'mid.data': NONE, 'active.data': NONE });
    await shows(bench, 'active.qcow2');
  });

  it('are committed into their base while they are written: its raw data file is the disk', async () => {
    await using bench = new Bench();
    await chain(bench);
    const served = await bench.disk('active.qcow2', ALLOW);
    await served.execute('block-commit', {
      'job-id': 'j',
      device: 'disk',
      'x-siblings': 'invalidate',
    });
    await served.until('BLOCK_JOB_READY');
    await guest(bench, 'write -P 5 3M 100k');
    await served.execute('job-complete', { id: 'j' });
    await served.until('null');
    await guest(bench, 'write -P 8 7M 5000');
    expect(await locks(bench)).toEqual({
      'base.raw': WRITER,
      'mid.data': NONE,
      'active.data': NONE,
    });
    expect((await served.stop()).code).toBe(0);
    await shows(bench, 'base.qcow2', 'base.raw');
  });

  it('get a snapshot: the data file of what it covers is read from then on', async () => {
    await using bench = new Bench();
    await chain(bench);
    const served = await bench.disk('active.qcow2', ALLOW);
    await guest(bench, 'write -P 5 3M 100k');
    await served.execute('blockdev-snapshot-sync', {
      device: 'disk',
      'snapshot-file': bench.file('over.qcow2'),
    });
    await guest(bench, 'write -P 6 1500k 700k');
    expect(await locks(bench)).toEqual({ ...IN_USE, 'active.data': READER });
    await served.stop();
    await shows(bench, 'over.qcow2');
  });

  it('keep others out while they are used, and are kept out', async () => {
    await using bench = new Bench();
    await chain(bench);
    // only the lock of its data file tells of this one
    copyFileSync(bench.file('mid.qcow2'), bench.file('twin.qcow2'));
    const served = await bench.disk('active.qcow2', ALLOW);
    const write = (
      ...image: readonly string[]
    ): Promise<{ readonly stdout: string; stderr: string }> =>
      bench.run('qemu-io', '-c', 'write 0 64k', ...image);
    for (const image of [
      ['-f', 'qcow2', 'twin.qcow2'],
      ['-f', 'raw', 'base.raw'],
    ]) {
      const { stdout, stderr } = await write(...image);
      expect(`${stdout}${stderr}`).toMatch(/Failed to get "write" lock/);
    }
    const twin = {
      driver: 'qcow2',
      'node-name': 'twin',
      file: { driver: 'file', filename: bench.file('twin.qcow2') },
      backing: null,
    };
    await expect(served.execute('blockdev-add', twin)).rejects.toThrow(
      /two images cannot keep their data in one file/,
    );
    await served.stop();
    const holder = bench.program(
      'qemu-io',
      '-f',
      'raw',
      'base.raw',
      '-c',
      'write 0 0',
      '-c',
      'sleep 20000',
    );
    await expect.poll(() => lockedBytes(bench, 'base.raw')).not.toEqual(NONE);
    const { stderr } = await bench.start(['active.qcow2', ALLOW, '--qmp', 'unix:run/qmp.sock'])
      .ended;
    expect(stderr).toMatch(/base\.raw.* is in use: qemu-io/);
    holder.kill('SIGKILL');
  });
});
