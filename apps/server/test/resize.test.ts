import { existsSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { asDisk, Bench, haveTools, MIB, makeChain, type Served, serve, WHOSE } from './support.ts';

describe.skipIf(!haveTools).each(WHOSE)('block_resize, by %s,', (whose) => {
  const resized = (served: Served, size: number, more: object = { 'node-name': 'disk' }) =>
    served.execute('block_resize', { size, ...more }).then(
      () => 'done',
      (cause: Error) => cause.message,
    );

  async function started(bench: Bench, how = 'read-only=off'): Promise<Served> {
    // base is longer: what it has there must not show
    await makeChain(bench, { base: [0, 9] });
    await bench.must(
      'qemu-img',
      'create',
      '-f',
      'qcow2',
      '-b',
      'base.qcow2',
      '-F',
      'qcow2',
      'top.qcow2',
      '8M',
    );
    return serve(bench, whose, ...asDisk(bench, 'top.qcow2', how));
  }

  it('makes a disk larger; what it had stays, what it gets is zero', async () => {
    await using bench = new Bench();
    const served = await started(bench);
    expect(await resized(served, 12 * MIB)).toBe('done');
    const nodes =
      await served.execute<{ 'node-name': string; image: object }[]>('query-named-block-nodes');
    expect(nodes.find((node) => node['node-name'] === 'disk')?.image).toMatchObject({
      'virtual-size': 12 * MIB,
    });
    const info = JSON.parse(
      await bench.must('qemu-img', 'info', '-U', '--output=json', 'top.qcow2'),
    );
    expect(info['virtual-size']).toBe(12 * MIB);
    await served.execute('quit');
    await served.server.ended;
    await bench.must('qemu-img', 'check', 'top.qcow2');
    const seen = await bench.must(
      'qemu-io',
      '-r',
      '-c',
      'read -P 0 9M 1M',
      '-c',
      'length',
      'top.qcow2',
    );
    expect(seen).not.toMatch(/verification failed/);
    expect(seen).toMatch(/12 MiB/);
  });

  it('refuses what cannot be', async () => {
    await using bench = new Bench();
    const served = await started(bench);
    expect(await resized(served, -512)).toBe("Parameter 'size' expects a >0 size");
    expect(await resized(served, 9 * MIB + 1)).toBe('The new size must be a multiple of 512');
    expect(await resized(served, 9 * MIB, {})).toBe("Cannot find device='' nor node-name=''");
    await served.execute('block-export-add', { type: 'nbd', id: 'e', 'node-name': 'disk' });
    // clients were told another size
    expect(await resized(served, 9 * MIB)).toMatch(/^Permission conflict|export 'e' uses it$/);
    await served.execute('block-export-del', { id: 'e' });
    await served.until('BLOCK_EXPORT_DELETED');
    await served.execute('block-stream', { 'job-id': 'j', device: 'disk', speed: 1 });
    expect(await resized(served, 9 * MIB)).toMatch(/ is in use$|job 'j' uses it$/);
  });

  it('refuses a node that is read-only', async () => {
    await using bench = new Bench();
    expect(await resized(await started(bench, 'read-only=on'), 9 * MIB)).toBe('Image is read-only');
  });
});

it('a disk is not made smaller: what is cut off may be needed', async () => {
  await using bench = new Bench();
  await makeChain(bench);
  const served = await serve(bench, 'us', ...asDisk(bench, 'top.qcow2'));
  const smaller = served.execute('block_resize', { 'node-name': 'disk', size: 8 * MIB });
  await expect(smaller).rejects.toThrow(/shrinking the disk/);
});

it('a disk with an interrupted job has the size that the job knows', async () => {
  await using bench = new Bench();
  await makeChain(bench);
  const options = asDisk(bench, 'top.qcow2');
  const before = await serve(bench, 'us', ...options);
  await before.execute('block-stream', { 'job-id': 'j', device: 'disk', speed: 1 });
  await expect.poll(() => existsSync(bench.file('top.qcow2.downfold'))).toBe(true);
  await before.stop();
  const served = await serve(bench, 'us', ...options);
  const size = { 'node-name': 'disk', size: 32 * MIB };
  await expect(served.execute('block_resize', size)).rejects.toThrow(/x-journal-resume/);
  await served.execute('x-journal-abort', { image: 'disk' });
  await served.execute('block_resize', size);
});
