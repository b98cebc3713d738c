import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { crc32 } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { type Bench, bench, diskOf, isClean, makeChain, start, whileStill } from './support.ts';

const MIB = 1 << 20;
/** Slow enough to be met at work: three pieces of 4 MiB at 4 MiB a second. */
const SLOW = ['commit', '-r', '4M', '-p', '-b', 'base.qcow2', '--top', 'top.qcow2', 'active.qcow2'];
const LARGE = [
  { name: 'base', mebibytes: [0] },
  { name: 'mid', mebibytes: [0, 1, 2, 3] },
  { name: 'top', mebibytes: [4, 5, 6, 7, 8, 9, 10, 11] },
  { name: 'active', mebibytes: [12] },
];
const JOURNAL = 'active.qcow2.downfold';

async function chain(): Promise<Bench> {
  const work = bench();
  await makeChain(work, LARGE, 16);
  return work;
}

/** Starts the slow commit and waits until it copies. */
async function copying(work: Bench, ...more: readonly string[]): Promise<ReturnType<typeof start>> {
  const job = start(work, ...SLOW.slice(0, -1), ...more, 'active.qcow2');
  await job.said(/[1-9]\d*\.\d\d\/100%|"phase":"copy","done":[1-9]/);
  return job;
}

/** What the journal says of the process that began it. */
function ownerIn(work: Bench): Record<string, unknown> {
  const [line = ''] = readFileSync(work.file(JOURNAL), 'utf8').split('\n');
  return (JSON.parse(line.slice(11)) as { owner: Record<string, unknown> }).owner;
}

/** Has the journal say something else of it. */
function changeOwner(work: Bench, change: Record<string, unknown>): void {
  const [line = '', ...others] = readFileSync(work.file(JOURNAL), 'utf8').split('\n');
  const intent = JSON.parse(line.slice(11)) as { owner: object };
  const text = `0 ${JSON.stringify({ ...intent, owner: { ...intent.owner, ...change } })}`;
  const sum = crc32(text).toString(16).padStart(8, '0');
  writeFileSync(work.file(JOURNAL), [`${sum} ${text}`, ...others].join('\n'));
}

describe('a commit that is interrupted', () => {
  it.each([
    ['SIGINT', 130],
    ['SIGTERM', 143],
  ] as const)(
    'by %s stops at a consistent point, says how to go on, and exits with %i',
    async (signal, exitCode) => {
      using work = await chain();
      const disks = [await diskOf(work, 'top.qcow2'), await diskOf(work, 'active.qcow2')];
      const job = await copying(work);
      job.kill(signal);
      const { code, stdout, stderr } = await job.ended;
      expect([code, stdout]).toEqual([exitCode, '']);
      expect(stderr).toContain(`downfold: ${signal}: stopping at the next consistent point`);
      expect(stderr).toMatch(
        /\ndownfold: Could not commit 'active\.qcow2': stopped after \d+ bytes; go on with: downfold resume '.*active\.qcow2'\n$/,
      );
      expect(existsSync(work.file(JOURNAL))).toBe(true);
      expect([await diskOf(work, 'top.qcow2'), await diskOf(work, 'active.qcow2')]).toEqual(disks);
    },
  );

  it('goes on with resume, and copies nothing twice that a checkpoint covers', async () => {
    using work = await chain();
    const [top, active] = [await diskOf(work, 'top.qcow2'), await diskOf(work, 'active.qcow2')];
    const job = await copying(work);
    job.kill('SIGINT');
    await job.ended;
    const result = work.json<{ bytesCopied: number; bytesSkippedByResume: number }>(
      'resume',
      '--verify',
      'active.qcow2',
    );
    expect(result).toMatchObject({ strategy: 'copy-down', verified: true });
    expect(result.bytesCopied + result.bytesSkippedByResume).toBe(12 * MIB);
    expect(existsSync(work.file(JOURNAL))).toBe(false);
    for (const name of ['base.qcow2', 'top.qcow2']) expect(await diskOf(work, name)).toBe(top);
    expect(await diskOf(work, 'active.qcow2')).toBe(active);
    for (const { name } of LARGE) expect(await isClean(work, `${name}.qcow2`)).toBe(true);
  });

  it('by kill -9 leaves top and active as they were, and resume finishes', async () => {
    using work = await chain();
    const [top, active] = [await diskOf(work, 'top.qcow2'), await diskOf(work, 'active.qcow2')];
    const job = await copying(work);
    job.kill('SIGKILL');
    await job.ended;
    expect([await diskOf(work, 'top.qcow2'), await diskOf(work, 'active.qcow2')]).toEqual([
      top,
      active,
    ]);
    const { code, stdout } = work.downfold('resume', 'active.qcow2');
    expect(code).toBe(0);
    expect(stdout).toMatch(/^Image committed\.\n/);
    expect(await diskOf(work, 'base.qcow2')).toBe(top);
    for (const { name } of LARGE) expect(await isClean(work, `${name}.qcow2`)).toBe(true);
  });

  it('forbids another commit, a dry run too, until it is resumed; neither writes', async () => {
    using work = await chain();
    const job = await copying(work);
    job.kill('SIGINT');
    await job.ended;
    const before = work.digest();
    for (const args of [['commit'], ['commit', '--dry-run']]) {
      const { code, stderr } = work.downfold(...args, 'active.qcow2');
      expect(code).toBe(1);
      expect(stderr).toMatch(/^downfold: .*interrupted.*downfold resume.*\n$/);
    }
    expect(work.digest()).toEqual(before);
  });

  it('cannot be resumed while it still runs', async () => {
    using work = await chain();
    const job = await copying(work);
    const { code, stderr } = whileStill(job, () => work.downfold('resume', 'active.qcow2'));
    expect(code).toBe(1);
    expect(stderr).toContain(`process ${job.pid}`);
    job.kill('SIGINT');
    expect((await job.ended).code).toBe(130);
  });

  it('is known from a process that was given its id later, where the system tells when processes start', async () => {
    using work = await chain();
    const job = await copying(work);
    job.kill('SIGKILL');
    await job.ended;
    const { started } = ownerIn(work);
    expect(started).toMatch(existsSync('/proc/self/stat') ? /^\d+$/ : /^undefined$/);
    // this process runs; it is taken for the owner unless the journal says that it cannot be
    changeOwner(work, { pid: process.pid, started: undefined });
    const { code, stderr } = work.downfold('resume', 'active.qcow2');
    expect([code, stderr]).toEqual([1, expect.stringContaining(`process ${process.pid} on `)]);
    changeOwner(work, { pid: process.pid, started: '1' });
    const resumed = work.downfold('resume', 'active.qcow2').code;
    expect(resumed).toBe(existsSync('/proc/self/stat') ? 0 : 1);
  });

  it('cannot be resumed when an image has changed since, and says which', async () => {
    using work = await chain();
    const job = await copying(work);
    job.kill('SIGINT');
    await job.ended;
    work.must('touch', 'top.qcow2');
    const { code, stderr } = work.downfold('resume', 'active.qcow2');
    expect(code).toBe(1);
    expect(stderr).toMatch(/^downfold: .*top\.qcow2: it was written to since/);
  });

  it('ends at once when it is told twice', async () => {
    using work = await chain();
    const job = await copying(work);
    job.kill('SIGINT');
    await job.said(/stopping at the next consistent point/);
    job.kill('SIGINT');
    expect((await job.ended).code).toBe(130);
  });

  it('tells of it as JSON too', async () => {
    using work = await chain();
    const job = await copying(work, '--output', 'json');
    job.kill('SIGINT');
    const { code, stdout } = await job.ended;
    expect(code).toBe(130);
    expect(JSON.parse(stdout)).toMatchObject({
      error: { class: 'STOPPED', desc: expect.stringContaining('downfold resume') },
    });
  });
});

describe('SIGUSR1', () => {
  it.each([
    [['-p'], /^ {4}\(\d+\.\d\d\/100%\)\n/m],
    [[], /^ {4}\(\d+\.\d\d\/100%\)\n/m],
    [['-p', '--output', 'json'], /^\{"progress":\{"phase":"copy",/m],
  ])('has a job with %j say how far it is, and opens no debugger', async (more, told) => {
    using work = await chain();
    const job = start(work, ...SLOW.filter((word) => word !== '-p'), ...more);
    await expect.poll(() => existsSync(work.file(JOURNAL)), { timeout: 20_000 }).toBe(true);
    job.kill('SIGUSR1');
    await job.said(told);
    job.kill('SIGINT');
    const { code, stderr } = await job.ended;
    expect(code).toBe(130);
    expect(stderr).not.toContain('Debugger');
  });
});

describe('resume', () => {
  it('without an interrupted job says so', async () => {
    using work = await chain();
    const { code, stderr } = work.downfold('resume', 'active.qcow2');
    expect(code).toBe(1);
    expect(stderr).toMatch(
      /^downfold: Could not resume the job of 'active\.qcow2': .*no interrupted job.*\n$/,
    );
  });

  it.each([
    ['not a journal', 'not a journal\n'],
    ['a diary', 'a diary, not a journal\n'],
    ['a number', 'deadbeef is a number\n'],
    ['a line of hex digits', 'cafe\n'],
    ['an archive', Buffer.concat([Buffer.alloc(512), Buffer.from([0x1f, 0x8b, 8, 0])])],
  ])('refuses %s in its place, and so do abort and commit; it stays as it is', async (_, text) => {
    using work = await chain();
    writeFileSync(work.file(JOURNAL), text);
    const before = work.digest();
    for (const command of ['resume', 'abort', 'commit']) {
      const { code, stderr } = work.downfold(command, 'active.qcow2');
      expect([command, code]).toEqual([command, 1]);
      expect(stderr).toContain(`${JOURNAL}: is not a journal of Downfold`);
      expect(work.digest()).toEqual(before);
    }
  });

  it.each([
    ['empty', 0],
    ['zeros', 4096],
  ])(
    'of a journal that is %s says that there is none; a commit puts its own there',
    async (_, zeros) => {
      using work = await chain();
      writeFileSync(work.file(JOURNAL), Buffer.alloc(zeros));
      const before = work.digest();
      for (const command of ['resume', 'abort']) {
        const { code, stderr } = work.downfold(command, 'active.qcow2');
        expect([command, code]).toEqual([command, 1]);
        expect(stderr).toMatch(
          /there is no interrupted job .*was never written, .*'downfold check'/,
        );
        expect(work.digest()).toEqual(before);
      }
      expect(work.downfold('commit', '-q', 'active.qcow2').code).toBe(0);
      expect(existsSync(work.file(JOURNAL))).toBe(false);
    },
  );
});
