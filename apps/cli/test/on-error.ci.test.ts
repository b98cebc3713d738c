import { spawn, spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { mounted, mountProblem } from './mounted.ts';
import { backingIn, complaints, IDENTICAL, makePool, type Pool } from './qemu-pool.ts';
import { haveStrace, injected, JOURNAL, LARGE, MIDDLE } from './stopped-job.ts';
import { type Bench, BIN, haveQemu, type Started, start } from './support.ts';

const STRATEGIES = ['copy-down', 'depth-first', 'preserve', 'staged'] as const;

const haveScript = spawnSync('script', ['--version']).status === 0;

let pool: Pool;
beforeAll(() => {
  if (haveQemu) pool = makePool(LARGE);
});
afterAll(() => {
  if (haveQemu) pool[Symbol.dispose]();
});

const started: Started[] = [];
// one that waits when its test has failed would wait for ever
afterEach(() => {
  for (const job of started.splice(0)) job.kill('SIGKILL');
});

/** `start`, for as long as the test takes. */
function startJob(work: Bench, ...args: readonly string[]): Started {
  const job = start(work, ...args);
  started.push(job);
  return job;
}

/** A copy of the chain, which holds 30 MiB, on a file system with a few more: 16 go to base. */
function tight(megabytes = 36): Bench {
  const work = mounted(megabytes);
  work.must('cp', '-a', '--sparse=always', `${pool.origin.path}/.`, '.');
  return work;
}

function enlarge(work: Bench): void {
  work.must('mount', '-o', 'remount,size=128m', work.path);
}

function expectUnharmed(work: Bench): void {
  for (const name of ['top.qcow2', 'active.qcow2'])
    expect(pool.compare(work, name), name).toBe(IDENTICAL);
}

/** That the middle of the chain was committed, as QEMU sees it, and nothing was left behind. */
function expectCommitted(work: Bench): void {
  expect(pool.compare(work, 'base.qcow2', 'top.qcow2')).toBe(IDENTICAL);
  expectUnharmed(work);
  expect(backingIn(work, 'active.qcow2')).toBe('base.qcow2 (qcow2)');
  expect(complaints(work, ...LARGE.map(({ name }) => name))).toEqual([]);
  expect(existsSync(work.file(JOURNAL))).toBe(false);
}

describe.skipIf(!haveQemu || mountProblem !== null)('when the file system is full', () => {
  it.each(STRATEGIES)('%s ends, says where, and is resumed when there is space', (strategy) => {
    using work = tight();
    const args = ['commit', '--strategy', strategy, ...MIDDLE];
    const { code, stdout, stderr } = work.downfold(...args);
    expect([code, stdout]).toEqual([1, '']);
    const written = strategy === 'preserve' ? '(base|mid)' : 'base';
    expect(stderr).toMatch(
      new RegExp(
        `^downfold: Could not commit 'active\\.qcow2': stopped after \\d+ bytes: /.*/${written}\\.qcow2: no space left on the device \\(ENOSPC in pwrite at byte \\d+\\); .*go on with: downfold resume '.*active\\.qcow2'\\n$`,
      ),
    );
    expect(existsSync(work.file(JOURNAL))).toBe(true);
    expectUnharmed(work);
    const again = work.downfold('resume', '--output', 'json', 'active.qcow2');
    expect(again.code).toBe(1);
    expect(JSON.parse(again.stdout)).toMatchObject({
      error: {
        class: 'COMMIT_STOPPED',
        details: { code: 'STORAGE_NO_SPACE', offset: expect.any(Number) },
      },
    });
    expectUnharmed(work);
    enlarge(work);
    expect(work.downfold('resume', 'active.qcow2').code).toBe(0);
    expectCommitted(work);
  });

  it('so that no journal can be written, nothing begins; there may be one later', () => {
    using work = tight();
    work.run('sh', '-c', 'cat /dev/zero > ballast');
    const { ballast: _, ...before } = work.digest();
    const { code, stderr } = work.downfold('commit', ...MIDDLE);
    expect(code).toBe(1);
    expect(stderr).toMatch(/active\.qcow2\.downfold: no space left on the device/);
    const { ballast: __, [JOURNAL]: ___, ...after } = work.digest();
    expect(after).toEqual(before);
    work.must('rm', 'ballast');
    enlarge(work);
    expect(work.downfold('commit', ...MIDDLE).code).toBe(0);
    expectCommitted(work);
  });

  it.each([...STRATEGIES])('--on-error retry goes on by itself with %s', async (strategy) => {
    using work = tight();
    const job = startJob(work, 'commit', '--on-error', 'retry', '--strategy', strategy, ...MIDDLE);
    await job.said(/downfold: .*ENOSPC in pwrite at byte \d+\); trying again in 1 s; Ctrl-C/);
    enlarge(work);
    const { code, stdout } = await job.ended;
    expect(code).toBe(0);
    expect(stdout).toMatch(/^Image committed\.\n/);
    expectCommitted(work);
  });

  it('--on-error retry goes on where base has a bitmap that has no room to be saved, too', async () => {
    using work = tight();
    work.must('qemu-img', 'bitmap', '--add', '-g', '512', 'base.qcow2', 'b0');
    const job = startJob(work, 'commit', '--on-error', 'retry', ...MIDDLE);
    await job.said(/ENOSPC in pwrite at byte \d+\); trying again in 1 s; Ctrl-C/);
    enlarge(work);
    const { code, stdout } = await job.ended;
    expect([code, stdout]).toEqual([0, expect.stringMatching(/^Image committed\.\n/)]);
    expectCommitted(work);
  });

  it('bitmaps that have no room to be saved are said to be lost, and the job is resumed all the same', () => {
    using work = tight();
    work.must('qemu-img', 'bitmap', '--add', '-g', '512', 'base.qcow2', 'b0');
    const { code, stderr } = work.downfold('commit', ...MIDDLE);
    expect(code).toBe(1);
    expect(stderr).toMatch(
      /ENOSPC.*; the bitmaps of \S+base\.qcow2 could not be saved, and are inconsistent;/,
    );
    enlarge(work);
    expect(work.downfold('resume', 'active.qcow2').code).toBe(0);
    expectCommitted(work);
  });

  it('--on-error stop waits for SIGCONT, as often as it takes', async () => {
    using work = tight();
    const job = startJob(work, 'commit', '--on-error', 'stop', ...MIDDLE);
    await job.said(/downfold: .*ENOSPC .*; paused; mend it, then press Enter or send SIGCONT/);
    expect(existsSync(work.file(JOURNAL))).toBe(true);
    expectUnharmed(work);
    job.kill('SIGCONT');
    await job.said(/paused.*paused/s);
    enlarge(work);
    job.kill('SIGCONT');
    const { code, stdout } = await job.ended;
    expect(code).toBe(0);
    expect(stdout).toMatch(/^Image committed\.\n/);
    expectCommitted(work);
  });

  it.each([
    ['stop', 'SIGINT', 130],
    ['stop', 'SIGTERM', 143],
    ['retry', 'SIGINT', 130],
  ] as const)(
    '--on-error %s, while it waits, can be left with %s',
    async (onError, signal, exit) => {
      using work = tight();
      const job = startJob(work, 'commit', '--on-error', onError, ...MIDDLE);
      await job.said(/ENOSPC/);
      job.kill(signal);
      const { code, stdout, stderr } = await job.ended;
      expect([code, stdout]).toEqual([exit, '']);
      expect(stderr).toMatch(/\ndownfold: Could not commit .*downfold resume '.*active\.qcow2'\n$/);
      expect(existsSync(work.file(JOURNAL))).toBe(true);
      expectUnharmed(work);
      enlarge(work);
      expect(work.downfold('resume', 'active.qcow2').code).toBe(0);
      expectCommitted(work);
    },
  );

  // util-linux's `script` makes the terminal
  it.skipIf(!haveScript)(
    '--on-error stop goes on when Enter is pressed on a terminal',
    async () => {
      using work = tight();
      const args = ['commit', '--on-error', 'stop', ...MIDDLE].join(' ');
      const command = `exec '${process.execPath}' '${BIN}' ${args}`;
      const terminal = spawn('script', ['-qec', command, '/dev/null'], { cwd: work.path });
      let [seen, pressed] = ['', false];
      terminal.stdout.setEncoding('utf8').on('data', (text: string) => {
        seen += text;
        if (pressed || !/paused; mend it/.test(seen)) return;
        pressed = true;
        enlarge(work);
        terminal.stdin.write('\n');
      });
      const code = await new Promise((resolve) => terminal.on('close', resolve));
      expect([code, seen]).toEqual([0, expect.stringContaining('Image committed.')]);
      expectCommitted(work);
    },
  );

  it('stream and rebase end, and are resumed', () => {
    for (const args of [['stream'], ['rebase', '-b', '']]) {
      using work = tight();
      const { code, stderr } = work.downfold(...args, 'active.qcow2');
      expect(code).toBe(1);
      expect(stderr).toMatch(/active\.qcow2: no space left .* at byte \d+.*downfold resume/);
      expectUnharmed(work);
      enlarge(work);
      expect(work.downfold('resume', 'active.qcow2').code).toBe(0);
      expectUnharmed(work);
      expect(backingIn(work, 'active.qcow2')).toBe('none');
      expect(complaints(work, 'active.qcow2')).toEqual([]);
    }
  });
});

describe.skipIf(!haveQemu || !haveStrace)('when a write fails once', () => {
  const EIO = 'pwrite64:error=EIO:when=2';

  it.each(STRATEGIES)('%s ends, names file and byte, and is resumed', (strategy) => {
    using work = pool.copy();
    const args = ['commit', '--strategy', strategy, ...MIDDLE];
    const { code, stdout, stderr } = injected(work, 'base.qcow2', EIO, ...args);
    expect([code, stdout]).toEqual([1, '']);
    expect(stderr).toMatch(
      /^downfold: Could not commit .*\/base\.qcow2: input\/output error \(EIO in pwrite at byte \d+\); every image is consistent; when it is mended go on with: downfold resume .*\n$/,
    );
    expectUnharmed(work);
    expect(work.downfold('resume', 'active.qcow2').code).toBe(0);
    expectCommitted(work);
  });

  it('--on-error retry needs nobody', () => {
    using work = pool.copy();
    const args = ['commit', '--on-error', 'retry', ...MIDDLE];
    const { code, stdout, stderr } = injected(work, 'base.qcow2', EIO, ...args);
    expect(code).toBe(0);
    expect(stderr).toMatch(/EIO in pwrite at byte \d+\); trying again in 1 s/);
    expect(stdout).toMatch(/^Image committed\.\n/);
    expectCommitted(work);
  });
});

describe.skipIf(!haveQemu || !haveStrace)('when a flush fails', () => {
  // the first one comes before the job
  const FAILED = 'fdatasync:error=EIO:when=2';

  it.each(['report', 'retry', 'stop'])(
    '--on-error %s: the job ends, and is resumed only when the user has seen to it',
    (onError) => {
      using work = pool.copy();
      const args = ['commit', '--on-error', onError, '--output', 'json', ...MIDDLE];
      const { code, stdout } = injected(work, 'base.qcow2', FAILED, ...args);
      expect(code).toBe(1);
      expect(JSON.parse(stdout)).toMatchObject({
        error: {
          class: 'COMMIT_STOPPED',
          desc: expect.stringMatching(
            /\/base\.qcow2: .*may not be on the disk: mend it, restart the machine or mount the file system anew, then: downfold resume/,
          ),
          details: { code: 'STORAGE_FLUSH_FAILED' },
        },
      });
      const before = work.digest();
      const refused = work.downfold('resume', '--output', 'json', 'active.qcow2');
      expect(refused.code).toBe(1);
      expect(JSON.parse(refused.stdout)).toMatchObject({
        error: {
          class: 'COMMIT_FLUSH_FAILED',
          desc: expect.stringMatching(/\/base\.qcow2: a flush failed.*--after-failed-flush$/),
        },
      });
      expect(work.digest()).toEqual(before);
      expectUnharmed(work);
      expect(work.downfold('resume', '--after-failed-flush', 'active.qcow2').code).toBe(0);
      expectCommitted(work);
    },
  );

  it('before the job began, nothing has happened', () => {
    using work = pool.copy();
    const before = work.digest();
    const inject = 'fdatasync:error=EIO:when=1';
    const { code, stderr } = injected(work, 'base.qcow2', inject, 'commit', ...MIDDLE);
    expect(code).toBe(1);
    expect(stderr).toMatch(/^downfold: Could not commit .*base\.qcow2: .*\n$/);
    expect(work.digest()).toEqual(before);
    expect(work.downfold('commit', ...MIDDLE).code).toBe(0);
    expectCommitted(work);
  });

  it('it can also be given up', () => {
    using work = pool.copy();
    const args = ['commit', '--strategy', 'staged', ...MIDDLE];
    expect(injected(work, 'base.qcow2', 'fdatasync:error=EIO:when=3', ...args).code).toBe(1);
    expect(work.json('abort', 'active.qcow2')).toMatchObject({ undone: true });
    for (const { name } of LARGE) expect(pool.compare(work, name), name).toBe(IDENTICAL);
    expect(complaints(work, 'base.qcow2')).toEqual([]);
  });
});
