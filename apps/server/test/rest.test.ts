import { connectNbd } from '@downfold/nbd';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Bench, haveTools, MIB, makeChain, type Served, serve } from './support.ts';

/** What an image's writer has, and its file has not, when nobody uses the disk any more. There is one writer of a file, never two. */
describe.skipIf(!haveTools)('a disk that nobody uses any more', () => {
  let bench: Bench;
  let served: Served;
  beforeEach(async () => {
    bench = new Bench();
    await makeChain(bench, { base: [0, 1, 2, 3], disk: [2] });
    await bench.must('qemu-img', 'bitmap', '--add', 'disk.qcow2', 'b');
    served = await serve(bench, 'us');
  });
  afterEach(() => bench[Symbol.asyncDispose]());

  const add = (name: string, more: object = {}): Promise<unknown> =>
    served.execute('blockdev-add', {
      driver: 'qcow2',
      'node-name': name,
      file: { driver: 'file', filename: bench.file(`${name}.qcow2`) },
      ...more,
    });
  const exported = (id: string, node: string): Promise<unknown> =>
    served.execute('block-export-add', { type: 'nbd', id, 'node-name': node, writable: true });

  /** Six clusters of the guest's. */
  async function write(name: string, mebibyte: number, { flush = true } = {}): Promise<void> {
    await using client = await connectNbd({ server: { path: bench.file('nbd.sock') }, name });
    await client.write(mebibyte * MIB, Buffer.alloc(6 * 65_536, 9));
    if (flush) await client.flush();
  }

  async function expectRead(name: string, ...mebibytes: readonly number[]): Promise<void> {
    expect((await served.stop()).code).toBe(0);
    const file = `${name}.qcow2`;
    await bench.must('qemu-img', 'check', file);
    const reads = mebibytes.flatMap((at) => ['-c', `read -q -P 9 ${at}M 384k`]);
    const { stdout } = await bench.run('qemu-io', '-r', '-f', 'qcow2', ...reads, file);
    expect(stdout).toBe('');
  }

  it('is written to after a stream into it', async () => {
    await add('disk');
    await served.execute('block-stream', { 'job-id': 's', device: 'disk' });
    await served.until('null');
    await exported('e', 'disk');
    await write('disk', 5);
    await expectRead('disk', 5);
  });

  it('is written to after an active commit into it', async () => {
    await bench.must('qemu-img', 'bitmap', '--add', 'base.qcow2', 'b');
    await add('disk');
    await served.execute('block-commit', { 'job-id': 's', device: 'disk' });
    await served.until('BLOCK_JOB_READY');
    await served.execute('job-complete', { id: 's' });
    await served.until('null');
    await exported('e', '#base.qcow2');
    await write('#base.qcow2', 5);
    await expectRead('base', 5);
  });

  it.each([
    ['at rest', false],
    ['in use', true],
  ])('is put on top of a disk %s, with what was written to it', async (_, inUse) => {
    await add('base');
    await add('disk', { backing: null });
    await exported('e', 'disk');
    await write('disk', 5, { flush: false });
    await served.execute('block-export-del', { id: 'e', mode: 'hard' });
    await served.until('BLOCK_EXPORT_DELETED');
    if (inUse) await exported('e2', 'base');
    await served.execute('blockdev-snapshot', { node: 'base', overlay: 'disk' });
    const name = inUse ? 'base' : 'disk';
    if (!inUse) await exported('e2', name);
    await write(name, 7);
    await expectRead('disk', 5, 7);
  });
});
