import { appendFileSync, existsSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { perTier } from '@downfold/compliance';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { backingIn, complaints, IDENTICAL, makePool, markOf, type Pool } from './qemu-pool.ts';
import { copying, haveStrace, injected, JOURNAL, LARGE, MIDDLE, stopped } from './stopped-job.ts';
import { type Bench, haveQemu, whileStill } from './support.ts';

const MIB = 1 << 20;
const CHAIN = LARGE.map(({ name }) => name);
const STRATEGIES = ['copy-down', 'depth-first', 'preserve', 'staged'] as const;

let pool: Pool;
beforeAll(() => {
  if (haveQemu) pool = makePool(LARGE);
});
afterAll(() => {
  if (haveQemu) pool[Symbol.dispose]();
});

/** A copy of the chain whose commit was killed half way. */
async function killed(strategy = 'copy-down'): Promise<Bench> {
  const work = pool.copy();
  await stopped(work, 'SIGKILL', 'commit', '--strategy', strategy, ...MIDDLE);
  return work;
}

/** That the middle of the chain was committed, as QEMU sees it, and nothing was left behind. */
function expectCommitted(work: Bench, strategy = 'copy-down'): void {
  expect(pool.compare(work, 'base.qcow2', 'top.qcow2')).toBe(IDENTICAL);
  for (const name of ['top.qcow2', 'active.qcow2'])
    expect(pool.compare(work, name), name).toBe(IDENTICAL);
  for (const name of ['top.qcow2', 'active.qcow2'])
    expect(backingIn(work, name)).toBe('base.qcow2 (qcow2)');
  if (strategy === 'preserve') expect(pool.compare(work, 'mid.qcow2')).toBe(IDENTICAL);
  expect(markOf(work, 'mid.qcow2')).toBe(strategy === 'preserve' ? null : 'invalid');
  expect(complaints(work, ...CHAIN)).toEqual([]);
  expect(Object.keys(work.digest())).toEqual([...CHAIN].sort());
}

/** `downfold resume`, which must be refused in one line and change nothing; resolves with the line. */
function refusal(work: Bench): string {
  const before = work.digest();
  const { code, stdout, stderr } = work.downfold('resume', 'active.qcow2');
  expect([code, stdout]).toEqual([1, '']);
  expect(stderr).toMatch(/^downfold: Could not resume the job of 'active\.qcow2': .*\n$/);
  expect(work.digest()).toEqual(before);
  return stderr;
}

describe.skipIf(!haveQemu)('resume after kill -9', () => {
  it.each(STRATEGIES)('finishes %s', async (strategy) => {
    using work = await killed(strategy);
    const result = work.json<{ bytesCopied: number; bytesSkippedByResume: number }>(
      'resume',
      'active.qcow2',
    );
    expect(result).toMatchObject({ operation: 'commit', strategy });
    expect(result.bytesCopied).toBeGreaterThan(0);
    expect(result.bytesCopied + result.bytesSkippedByResume).toBeLessThanOrEqual(30 * MIB);
    expectCommitted(work, strategy);
  });

  it.each(STRATEGIES)('finishes %s in a directory that was moved', async (strategy) => {
    using work = await killed(strategy);
    work.must('sh', '-c', 'mkdir -p new/place && mv *.qcow2 *.downfold new/place/');
    const { code, stdout, stderr } = work.downfold('resume', 'new/place/active.qcow2');
    expect([code, stderr]).toEqual([0, '']);
    expect(stdout).toMatch(/^Image committed\.\n/);
    work.must('sh', '-c', 'mv new/place/* . && rm -r new');
    expectCommitted(work, strategy);
  });

  it.each(STRATEGIES)('finishes %s after a resume that was killed too', async (strategy) => {
    using work = await killed(strategy);
    await stopped(work, 'SIGKILL', 'resume', 'active.qcow2');
    expect(work.downfold('resume', '--verify', 'active.qcow2').code).toBe(0);
    expectCommitted(work, strategy);
  });

  it('deletes what is no longer valid when it is told so too', async () => {
    using work = await killed();
    const { code, stdout } = work.downfold('resume', '--delete', 'active.qcow2');
    expect(code).toBe(0);
    expect(stdout).toContain('\n  mid.qcow2 is deleted');
    expect(existsSync(work.file('mid.qcow2'))).toBe(false);
    for (const name of ['top.qcow2', 'active.qcow2'])
      expect(pool.compare(work, name), name).toBe(IDENTICAL);
  });

  it('finds the job by any name of the image', async () => {
    using work = await killed();
    work.must('ln', '-s', 'active.qcow2', 'link.qcow2');
    expect(work.downfold('resume', 'link.qcow2').code).toBe(0);
    work.must('rm', 'link.qcow2');
    expectCommitted(work);
  });

  it('is refused while the job is at work', async () => {
    using work = pool.copy();
    const job = await copying(work, 'commit', ...MIDDLE);
    const { code, stdout } = whileStill(job, () =>
      work.downfold('resume', '--output', 'json', 'active.qcow2'),
    );
    expect(code).toBe(1);
    expect(JSON.parse(stdout)).toMatchObject({
      error: { class: 'COMMIT_LIVE_OWNER', details: { pid: job.pid } },
    });
    expect((await job.ended).code).toBe(0);
    expectCommitted(work);
  });
});

describe.skipIf(!haveQemu || !haveStrace)('resume once all data is in base', () => {
  it.each(['copy-down', 'staged'])(
    'finishes %s although somebody deleted an intermediate, which would be marked only',
    (strategy) => {
      using work = pool.copy();
      const args = ['commit', '--strategy', strategy, ...MIDDLE];
      // active is relinked last of all that matters
      expect(injected(work, 'active.qcow2', 'pwrite64:error=EIO:when=1', ...args).code).toBe(1);
      work.must('rm', 'mid.qcow2');
      expect(work.downfold('abort', 'active.qcow2').stderr).toContain('downfold resume');
      const { code, stdout } = work.downfold('resume', 'active.qcow2');
      expect(code).toBe(0);
      expect(stdout).toMatch(/\n {2}mid\.qcow2 is no longer valid \(not marked: .*no such file/);
      for (const name of ['top.qcow2', 'active.qcow2'])
        expect(pool.compare(work, name), name).toBe(IDENTICAL);
      expect(backingIn(work, 'active.qcow2')).toBe('base.qcow2 (qcow2)');
      expect(existsSync(work.file(JOURNAL))).toBe(false);
    },
  );
});

describe.skipIf(!haveQemu)('resume refuses, and names it, when', () => {
  it.each([
    [
      'a source was written to',
      ['qemu-io', '-f', 'qcow2', '-c', 'write -P 9 30M 64k', 'mid.qcow2'],
      /\/mid\.qcow2: its length changed|\/mid\.qcow2: it was written to/,
    ],
    ['a source was touched', ['touch', 'top.qcow2'], /\/top\.qcow2: it was written to since/],
    [
      'another file has the name of an image',
      ['sh', '-c', 'cp -p base.qcow2 x && mv x base.qcow2'],
      /\/base\.qcow2: another file has its name since/,
    ],
    [
      'base was resized',
      ['qemu-img', 'resize', '-q', '-f', 'qcow2', 'base.qcow2', '40M'],
      /\/base\.qcow2: its virtual size changed to 41943040 since/,
    ],
    [
      'a backing reference changed',
      ['qemu-img', 'rebase', '-u', '-b', 'mid.qcow2', '-F', 'qcow2', 'active.qcow2'],
      /\/active\.qcow2: its backing file changed to 'mid\.qcow2' since/,
    ],
    [
      'an intermediate is gone',
      ['rm', 'mid.qcow2'],
      /\/mid\.qcow2: is not there, .*downfold abort '/,
    ],
    ['base is gone', ['rm', 'base.qcow2'], /\/base\.qcow2: is not there, .*remove the journal '/],
    [
      'an image is none any more',
      ['sh', '-c', 'printf x | dd of=base.qcow2 conv=notrunc status=none'],
      /\/base\.qcow2: /,
    ],
  ] as const)('%s', async (_, [program, ...args], why) => {
    using work = await killed();
    work.must(program, ...args);
    expect(refusal(work)).toMatch(why);
  });

  it('the journal is that of another chain', async () => {
    using work = await killed();
    using other = pool.copy();
    other.must('cp', work.file(JOURNAL), '.');
    expect(refusal(other)).toMatch(/\/base\.qcow2: another file has its name since/);
  });

  it('the journal was edited', async () => {
    using work = await killed();
    const whole = readFileSync(work.file(JOURNAL), 'utf8');
    const lines = whole.trimEnd().split('\n');
    expect(lines.length).toBeGreaterThan(1);
    const [intent = '', ...rest] = lines;
    const changes: readonly (readonly [string, RegExp])[] = [
      [whole.replace('"emptyTop":false', '"emptyTop":true'), /it was edited; it is not touched/],
      [whole.replace('base.qcow2', 'BASE.qcow2'), /it was edited; it is not touched/],
      // one digit of the checksum, which may be a 0
      [`${whole[0] === '0' ? 1 : 0}${whole.slice(1)}`, /it was edited; it is not touched/],
      [`${rest.join('\n')}\n`, /is not a journal of Downfold|it was edited/],
      [`#\n${whole}`, /it was edited; it is not touched/],
      [whole.replaceAll('\n', '\n\n'), /it was edited; it is not touched/],
      [`garbage ${intent}`, /is not a journal of Downfold/],
    ];
    for (const [text, why] of changes) {
      writeFileSync(work.file(JOURNAL), text);
      expect(text).not.toBe(whole);
      expect(refusal(work)).toMatch(why);
    }
    writeFileSync(work.file(JOURNAL), whole);
    expect(work.downfold('resume', 'active.qcow2').code).toBe(0);
    expectCommitted(work);
  });
});

describe.skipIf(!haveQemu)('a journal whose end is torn', () => {
  it.each([
    ['in the middle of its last line', (at: string, size: number) => truncateSync(at, size - 5)],
    ['before its last line end', (at: string, size: number) => truncateSync(at, size - 1)],
    ['and continues with zeros', (at: string, size: number) => truncateSync(at, size + 4096)],
    [
      'and continues with a part of a record',
      (at: string) => appendFileSync(at, '1234abcd 2 {"ty'),
    ],
    ['and continues with a line of something else', (at: string) => appendFileSync(at, 'zzz\n')],
  ])('%s is resumed all the same', async (_, tear) => {
    using work = await killed();
    tear(work.file(JOURNAL), readFileSync(work.file(JOURNAL)).length);
    expect(work.downfold('resume', 'active.qcow2').code).toBe(0);
    expectCommitted(work);
  });

  it('so that it never began is none: nothing had happened', () => {
    using work = pool.copy();
    writeFileSync(work.file(JOURNAL), '1234abcd 0 {"type":"INT');
    const { code, stderr } = work.downfold('resume', 'active.qcow2');
    expect(code).toBe(1);
    expect(stderr).toContain('no interrupted job');
    expect(work.downfold('commit', ...MIDDLE).code).toBe(0);
    expect(existsSync(work.file(JOURNAL))).toBe(false);
    expectCommitted(work);
  });
});

/** How many journals are damaged. */
const FLIPS = perTier({ quick: 12, ci: 40, long: 1000 });

describe.skipIf(!haveQemu)('a journal in which a bit is wrong', () => {
  it.each(STRATEGIES)(
    `${FLIPS / 4} times, of %s: is refused, or the job ends right`,
    async (strategy) => {
      using work = await killed(strategy);
      using asKilled = pool.copy();
      asKilled.must('cp', '-a', '--sparse=always', `${work.path}/.`, '.');
      const whole = readFileSync(work.file(JOURNAL));
      for (let round = 0; round < FLIPS / 4; round++) {
        // spread over the whole of it, every bit in its turn
        const at = Math.floor(((round + 0.5) / (FLIPS / 4)) * whole.length);
        const replay = `byte ${at} of ${whole.length}, bit ${round % 8}`;
        const damaged = Buffer.from(whole);
        damaged[at] = (damaged[at] ?? 0) ^ (1 << (round % 8));
        writeFileSync(work.file(JOURNAL), damaged);
        const { code, stderr } = work.downfold('resume', 'active.qcow2');
        for (const name of ['top.qcow2', 'active.qcow2'])
          expect(pool.compare(work, name), `${replay}: ${name}`).toBe(IDENTICAL);
        if (code === 0) expectCommitted(work, strategy);
        else expect(stderr, replay).toMatch(/it was edited|no interrupted job|not a journal/);
        // in place, with their times: they are the same files
        work.must('cp', '-a', `${asKilled.path}/.`, '.');
      }
      expect(work.downfold('resume', 'active.qcow2').code).toBe(0);
      expectCommitted(work, strategy);
    },
  );
});
