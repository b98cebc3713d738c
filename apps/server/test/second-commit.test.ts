import { unlinkSync } from 'node:fs';
import { connectNbd } from '@downfold/nbd';
import { beforeEach, describe, expect, it } from 'vitest';
import { Bench, type ChainSpec, contentOf, MIB, makeChain, type Served } from './support.ts';

const SPEC: ChainSpec = { base: [0, 1], mid: [1, 2], top: [2, 3], next: [3, 4], disk: [5] };
const commit = (top: string, more: object = {}): object => ({
  ...{ 'job-id': 'j', device: 'disk', 'base-node': '#base.qcow2', 'top-node': `#${top}.qcow2` },
  ...more,
});

/** A commit leaves `top` as an image that reads what it read, and those between it and base as images that are marked invalid. */
describe('a second commit onto the same base', () => {
  let bench: Bench;
  let served: Served;
  beforeEach(async () => {
    bench = new Bench();
    await makeChain(bench, SPEC);
    served = await bench.disk('disk.qcow2');
    await served.execute('block-commit', commit('top'));
    await served.until('null');
    return () => bench[Symbol.asyncDispose]();
  });

  async function expectDone(): Promise<void> {
    expect(await served.until('null')).toContain('BLOCK_JOB_COMPLETED');
    await using client = await connectNbd({
      server: { path: bench.file('run/nbd.sock') },
      name: '',
    });
    const disk = Buffer.alloc(16 * MIB);
    await client.read(0, disk);
    expect(disk.equals(contentOf(SPEC))).toBe(true);
  }

  it('is refused for the sake of what the first one left readable, and for that alone', async () => {
    await expect(served.execute('block-commit', commit('next'))).rejects.toThrow(
      `would not read any more what they read: ${bench.file('top.qcow2')};`,
    );
    // nothing of the image that is marked invalid is lost
    unlinkSync(bench.file('top.qcow2'));
    await served.execute('block-commit', commit('next'));
    await expectDone();
  });

  it('goes through when that may become invalid', async () => {
    await served.execute('block-commit', commit('next', { 'x-siblings': 'invalidate' }));
    await expectDone();
  });
});
