import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { perTier } from '@downfold/compliance';
import { describe, expect, it } from 'vitest';
import { copying, MIDDLE } from './stopped-job.ts';
import {
  type Bench,
  bench,
  diskOf,
  haveQemu,
  isClean,
  makeChain,
  makeImage,
  start,
  whileStill,
} from './support.ts';

const RACES = perTier({ quick: 4, ci: 200, long: 1000 });

/** QEMU with active.qcow2 open, as for a running machine, while `work` is done. */
async function withMachine<T>(place: Bench, work: () => Promise<T> | T): Promise<T> {
  const machine: ChildProcess = spawn('qemu-io', ['-f', 'qcow2', 'active.qcow2'], {
    cwd: place.path,
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  machine.stdin?.write('length\n');
  await once(machine.stdout as NodeJS.ReadableStream, 'data');
  try {
    return await work();
  } finally {
    machine.kill('SIGKILL');
    await once(machine, 'exit');
  }
}

describe.skipIf(!haveQemu)('beneath a running machine', () => {
  it.each([
    ['commit', ...MIDDLE],
    ['commit', '--dry-run', ...MIDDLE],
    ['commit', '-b', 'base.qcow2', '--top', 'mid.qcow2', 'top.qcow2'],
    ['stream', 'active.qcow2'],
    ['rebase', '-b', 'base.qcow2', '-F', 'qcow2', 'active.qcow2'],
    ['info', 'active.qcow2'],
    ['info', '--backing-chain', 'active.qcow2'],
    ['map', 'active.qcow2'],
    ['check', 'active.qcow2'],
    ['compare', 'active.qcow2', 'base.qcow2'],
  ])('%s %s is refused, naming who runs it, and changes nothing', async (...args) => {
    using work = bench();
    await makeChain(work);
    await withMachine(work, () => {
      const before = work.digest();
      const { code, stdout, stderr } = work.downfold(...args);
      expect(code).not.toBe(0);
      expect(stdout).toBe('');
      expect(stderr).toMatch(/is in use: qemu-io \(process \d+\)/);
      expect(work.digest()).toEqual(before);
    });
  });

  it.each([
    ['info', '-U', 'active.qcow2'],
    ['map', '-U', 'active.qcow2'],
    ['compare', '-U', 'active.qcow2', 'active.qcow2'],
    // what is read only may be read
    ['info', 'base.qcow2'],
    ['map', 'top.qcow2'],
    ['check', 'mid.qcow2'],
    ['graph', '.'],
    ['commit', '--dry-run', '--lock', 'none', ...MIDDLE],
  ])('%s %s does', async (...args) => {
    using work = bench();
    await makeChain(work);
    await withMachine(work, () => {
      expect(work.downfold(...args)).toMatchObject({ code: 0, stderr: '' });
    });
  });
});

describe.skipIf(!haveQemu)('while a job runs', () => {
  it('QEMU opens none of its images to write, and reads none that loses its meaning', async () => {
    using work = bench();
    await makeChain(work, undefined, 8);
    const job = await copying(work, 'commit', ...MIDDLE);
    whileStill(job, () => {
      const open = (...args: readonly string[]): string =>
        work.run('qemu-io', '-f', 'qcow2', '-c', 'read -q 0 512', ...args).stderr;
      for (const name of ['base', 'mid', 'top', 'active'])
        expect(open(`${name}.qcow2`), name).toMatch(/Failed to get/);
      expect(open('-r', 'mid.qcow2')).toMatch(/Failed to get "consistent read" lock/);
      expect(open('-r', '-U', 'active.qcow2')).not.toMatch(/Failed to get "write"/);
      const other = work.downfold('check', 'base.qcow2');
      expect(other.stderr).toMatch(new RegExp(`is in use: \\S+ \\(process ${job.pid}\\)`));
    });
    expect((await job.ended).code).toBe(0);
    expect(work.run('qemu-io', '-f', 'qcow2', '-c', 'read -q 0 512', 'active.qcow2').code).toBe(0);
  });
});

/** Both commit to one base; each has a journal of its own, so that only locks are between them. */
it(`of two committers never both write: ${RACES} races`, async () => {
  let won = 0;
  for (let race = 0; race < RACES; race++) {
    using work = bench();
    const mebibytes = 2;
    await makeImage(work, 'base.qcow2', { layer: 1, held: [0], mebibytes, below: null });
    for (const [layer, name] of [
      [2, 'one.qcow2'],
      [3, 'other.qcow2'],
    ] as const)
      await makeImage(work, name, { layer, held: [0, 1], mebibytes, below: 'base.qcow2' });
    const names = ['one.qcow2', 'other.qcow2'];
    const shown = await Promise.all(names.map((name) => diskOf(work, name)));
    const ended = await Promise.all(
      names.map((name) => start(work, 'commit', '-d', '--invalidate-siblings', name).ended),
    );
    for (const { code, stderr } of ended)
      if (code !== 0) expect(stderr).toMatch(/is in use|is marked|changed since|another file/);
    const winners = ended.flatMap(({ code }, index) => (code === 0 ? [index] : []));
    expect(winners.length, JSON.stringify(ended)).toBeLessThanOrEqual(1);
    won += winners.length;
    for (const winner of winners) expect(await diskOf(work, 'base.qcow2')).toBe(shown[winner]);
    expect(await isClean(work, 'base.qcow2')).toBe(true);
  }
  // two that meet may both be refused, but not always
  expect(won).toBeGreaterThan(0);
}, 600_000);
