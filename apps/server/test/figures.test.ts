import { existsSync } from 'node:fs';
import { connectNbd } from '@downfold/nbd';
import { expect, it } from 'vitest';
import { Bench, MIB, makeChain, type Served } from './support.ts';

/** What a job tells of how far it is. */
interface Figures {
  readonly len: number;
  readonly offset: number;
}

async function figuresOf(served: Served): Promise<Figures> {
  const [job] = await served.execute<[Figures]>('query-block-jobs');
  return job;
}

async function write(bench: Bench, mebibytes: readonly number[]): Promise<void> {
  await using client = await connectNbd({
    server: { path: bench.file('run/nbd.sock') },
    name: '',
  });
  for (const at of mebibytes) await client.write(at * MIB, Buffer.alloc(MIB, 7));
  await client.flush();
}

const COMMIT = { 'job-id': 'j', device: 'disk', 'base-node': '#base.qcow2' };

it('what a guest adds to a disk that is committed is added to the length of the job', async () => {
  await using bench = new Bench();
  await makeChain(bench, { base: [0], disk: [1, 2] });
  const served = await bench.disk('disk.qcow2');
  await served.execute('block-commit', { ...COMMIT, speed: 4 * MIB });
  await expect.poll(() => existsSync(bench.file('disk.qcow2.downfold'))).toBe(true);
  await write(bench, [4, 5, 6, 7, 8]);
  await served.kill();
  const again = await bench.disk('disk.qcow2');
  await again.execute('x-journal-resume', { image: 'disk', 'job-id': 'j' });
  for (let isReady = false; !isReady; ) {
    const [{ len, offset, ready }] =
      await again.execute<[Figures & { ready: boolean }]>('query-block-jobs');
    expect(len).toBeGreaterThanOrEqual(offset);
    isReady = ready;
  }
  const { len, offset } = await figuresOf(again);
  expect(len).toBe(offset);
  expect(offset).toBeGreaterThanOrEqual(7 * MIB);
  await again.execute('job-complete', { id: 'j' });
  expect(await again.until('null')).toContain('BLOCK_JOB_COMPLETED');
});
