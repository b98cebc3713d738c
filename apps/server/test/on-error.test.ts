import { spawnSync } from 'node:child_process';
import { statSync } from 'node:fs';
import { connectQmp } from '@downfold/qmp';
import { expect, it } from 'vitest';
import { Bench, BIN, haveAll, MIB, makeChain, Served } from './support.ts';

const havePrlimit = haveAll('prlimit');
const COMMIT = {
  'job-id': 'j',
  device: 'disk',
  'top-node': '#mid.qcow2',
  'base-node': '#base.qcow2',
};

/** A server whose files cannot grow past `bytes`, as on a disk that is full: EFBIG counts as no space. */
async function cramped(bench: Bench): Promise<Served> {
  const command = `trap '' XFSZ; exec "$@"`;
  const args = [BIN, 'top.qcow2', '--qmp', 'unix:run/qmp.sock'];
  const server = bench.program('sh', '-c', command, 'sh', process.execPath, ...args);
  await server.said(/QMP at/);
  return new Served(server, await connectQmp(bench.file('run/qmp.sock')));
}

function limit(served: Served, bytes: number | 'unlimited'): void {
  const { status, stderr } = spawnSync('prlimit', [
    `--pid=${served.server.pid}`,
    `--fsize=${bytes}:unlimited`,
  ]);
  if (status !== 0) throw new Error(String(stderr));
}

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
      { status: 'concluded', error: expect.stringMatching(/base\.qcow2: no space left/) },
    ]);
    await served.execute('job-dismiss', { id: 'j' });
    expect(await served.until('null')).toEqual(['null']);
    limit(served, 'unlimited');
    await served.execute('block-commit', COMMIT);
    expect(await served.until('null')).toContain('BLOCK_JOB_COMPLETED');
  },
);
