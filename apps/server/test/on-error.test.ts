import { existsSync, statSync } from 'node:fs';
import { expect, it } from 'vitest';
import { Bench, cramped, haveAll, limit, MIB, makeChain } from './support.ts';

const havePrlimit = haveAll('prlimit');
const COMMIT = {
  'job-id': 'j',
  device: 'disk',
  'top-node': '#mid.qcow2',
  'base-node': '#base.qcow2',
};

it.skipIf(!havePrlimit)(
  'enospc: the job pauses while there is no space, and goes on when told to',
  async () => {
    await using bench = new Bench();
    await makeChain(bench);
    const served = await cramped(bench);
    limit(served, statSync(bench.file('base.qcow2')).size + MIB / 2);
    await served.execute('block-commit', { ...COMMIT, 'on-error': 'enospc' });
    expect(await served.until('paused')).toEqual([
      'created',
      'running',
      'BLOCK_JOB_ERROR',
      'paused',
    ]);
    expect(await served.execute('query-block-jobs')).toMatchObject([
      { status: 'paused', paused: true, 'io-status': 'nospace' },
    ]);
    limit(served, 'unlimited');
    await served.execute('job-resume', { id: 'j' });
    expect((await served.until('null')).slice(-3)).toEqual([
      'BLOCK_JOB_COMPLETED',
      'concluded',
      'null',
    ]);
  },
);

it.skipIf(!havePrlimit)(
  'report, the default: the job fails and is given up; another one can be started',
  async () => {
    await using bench = new Bench();
    await makeChain(bench);
    const served = await cramped(bench);
    limit(served, statSync(bench.file('base.qcow2')).size + MIB / 2);
    await served.execute('block-commit', { ...COMMIT, 'auto-dismiss': false });
    expect(await served.until('concluded')).toEqual([
      'created',
      'running',
      'BLOCK_JOB_ERROR',
      'aborting',
      'BLOCK_JOB_COMPLETED with error',
      'concluded',
    ]);
    expect(await served.execute('query-jobs')).toMatchObject([
      {
        status: 'concluded',
        // the half that base holds is not what base showed
        error: expect.stringMatching(
          /base\.qcow2: larger than files can be[^;]*; the job was given up; a part of it is in: .*base\.qcow2$/,
        ),
      },
    ]);
    await served.execute('job-dismiss', { id: 'j' });
    expect(await served.until('null')).toEqual(['null']);
    limit(served, 'unlimited');
    await served.execute('block-commit', COMMIT);
    expect(await served.until('null')).toContain('BLOCK_JOB_COMPLETED');
  },
);

it.skipIf(!havePrlimit)(
  'a job that was gone on with and fails says that its journal stays, and how to go on here',
  async () => {
    await using bench = new Bench();
    await makeChain(bench);
    const before = await cramped(bench);
    await before.execute('block-commit', { ...COMMIT, speed: MIB / 4 });
    await expect.poll(() => existsSync(bench.file('top.qcow2.downfold'))).toBe(true);
    await before.kill();
    const served = await cramped(bench);
    limit(served, statSync(bench.file('base.qcow2')).size + MIB / 2);
    await served.execute('x-journal-resume', { image: 'disk', 'auto-dismiss': false });
    await served.until('concluded');
    const [{ error }] = await served.execute<[{ error: string }]>('query-jobs');
    expect(error).toMatch(/; its journal stays: x-journal-resume, or x-journal-abort$/);
    expect(error).not.toMatch(/downfold resume/);
    expect(await served.execute('x-query-journals')).toHaveLength(1);
  },
);
