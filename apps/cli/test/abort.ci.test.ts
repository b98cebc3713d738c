import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { crc32 } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  backingIn,
  complaints,
  hostBytes,
  IDENTICAL,
  makePool,
  markOf,
  type Pool,
} from './qemu-pool.ts';
import { copying, haveStrace, injected, JOURNAL, LARGE, MIDDLE, stopped } from './stopped-job.ts';
import { type Bench, haveQemu, whileStill } from './support.ts';

const CHAIN = LARGE.map(({ name }) => name);

/** Who reads as before when a job of a strategy is given up half way; the others are of no point in time, and marked. */
const KEPT: Readonly<Record<string, readonly string[]>> = {
  'copy-down': ['top.qcow2', 'active.qcow2'],
  // stopped while mid is drained: nothing of top was written to base yet
  'depth-first': ['mid.qcow2', 'top.qcow2', 'active.qcow2'],
  preserve: ['mid.qcow2', 'top.qcow2', 'active.qcow2'],
  staged: CHAIN,
};

/** What `abort --output json` says. */
interface Abort {
  readonly job: string;
  readonly strategy: string;
  readonly undone: boolean;
  readonly mixed: readonly string[];
  readonly gone: readonly string[];
  readonly clustersFreed: number;
}

let pool: Pool;
let raw: Pool;
beforeAll(() => {
  if (!haveQemu) return;
  pool = makePool(LARGE);
  const [base, mid, ...above] = LARGE;
  raw = makePool([
    { ...base, name: 'base.raw', format: 'raw' },
    { ...mid, backing: 'base.raw' },
    ...above,
  ]);
});
afterAll(() => {
  if (!haveQemu) return;
  pool[Symbol.dispose]();
  raw[Symbol.dispose]();
});

describe.skipIf(!haveQemu)('abort', () => {
  describe.each(Object.keys(KEPT))('of %s', (strategy) => {
    it.each(['SIGKILL', 'SIGINT'] as const)(
      'after %s leaves who was promised as they were, and marks the others',
      async (signal) => {
        using work = pool.copy();
        await stopped(work, signal, 'commit', '--strategy', strategy, ...MIDDLE);
        const kept = KEPT[strategy] ?? [];
        const mixed = CHAIN.filter((name) => !kept.includes(name));
        const result = work.json<Abort>('abort', 'active.qcow2');
        expect(result).toEqual({
          job: expect.any(String),
          strategy,
          undone: mixed.length === 0,
          mixed: mixed.map((name) => work.file(name)),
          gone: [],
          clustersFreed: expect.any(Number),
          unmarked: [],
        });
        for (const name of kept) expect(pool.compare(work, name), name).toBe(IDENTICAL);
        for (const name of CHAIN)
          expect(markOf(work, name), name).toBe(mixed.includes(name) ? 'mixed' : null);
        for (const { name, ...one } of LARGE)
          expect(backingIn(work, name)).toBe('backing' in one ? `${one.backing} (qcow2)` : 'none');
        expect(complaints(work, ...CHAIN)).toEqual([]);
        expect(Object.keys(work.digest())).toEqual([...CHAIN].sort());
      },
    );

    it('is followed by a commit like any other, after which nothing is mixed', async () => {
      using work = pool.copy();
      await stopped(work, 'SIGKILL', 'commit', '--strategy', strategy, ...MIDDLE);
      work.json('abort', 'active.qcow2');
      expect(work.downfold('commit', '-q', '--strategy', strategy, ...MIDDLE).code).toBe(0);
      expect(pool.compare(work, 'base.qcow2', 'top.qcow2')).toBe(IDENTICAL);
      for (const name of ['top.qcow2', 'active.qcow2'])
        expect(pool.compare(work, name), name).toBe(IDENTICAL);
      for (const name of ['base.qcow2', 'top.qcow2', 'active.qcow2'])
        expect(markOf(work, name), name).toBe(null);
      expect(complaints(work, ...CHAIN)).toEqual([]);
    });
  });

  it('of staged gives the space back that was taken', async () => {
    using work = pool.copy();
    const before = hostBytes(work, 'base.qcow2');
    // made durable by the stop: what a killed process wrote and nothing counts is only used again, not given back
    const job = await copying(work, 'commit', '--strategy', 'staged', ...MIDDLE);
    await job.said(/"phase":"copy","done":[4-9]\d{6},/);
    job.kill('SIGINT');
    await job.ended;
    expect(hostBytes(work, 'base.qcow2')).toBeGreaterThan(before + (3 << 20));
    refusesRepair(work);
    const { code, stdout } = work.downfold('abort', 'active.qcow2');
    expect(code).toBe(0);
    expect(stdout).toMatch(
      /^Job given up\.\n {2}every image reads as it did before\n {2}\d+ clusters given back\n$/,
    );
    expect(work.downfold('check', '-q', '-r', 'leaks', 'base.qcow2').code).toBe(0);
    expect(hostBytes(work, 'base.qcow2')).toBeLessThan(before + (1 << 20));
  });

  /** As after a checkpoint, which tells where the staging lies: to a check it leaks, and it is the job's. */
  function refusesRepair(work: Bench): void {
    const journal = readFileSync(work.file(JOURNAL), 'utf8');
    const intent = JSON.parse(journal.split('\n')[0]?.slice(11) ?? '') as {
      plan: { request: { base: string } };
    };
    const stagings = { [intent.plan.request.base]: {} };
    const progress = { type: 'PROGRESS', cursor: {}, copied: 0, zeroed: 0, stagings };
    const record = `${journal.trim().split('\n').length} ${JSON.stringify(progress)}`;
    const sum = crc32(record).toString(16).padStart(8, '0');
    writeFileSync(work.file(JOURNAL), `${journal}${sum} ${record}\n`);
    const before = work.digest();
    for (const line of [
      ['check', '-r', 'leaks', 'base.qcow2'],
      ['check', '-r', 'all', 'base.qcow2'],
      ['amend', '-o', 'refcount_bits=8', 'base.qcow2'],
    ]) {
      const { code, stderr } = work.downfold(...line);
      expect([line, code, stderr]).toEqual([line, 1, expect.stringContaining('downfold resume')]);
    }
    expect(work.digest()).toEqual(before);
    writeFileSync(work.file(JOURNAL), journal);
  }

  it('no verb changes the image meanwhile: the job could neither go on nor be given up', async () => {
    using work = pool.copy();
    await stopped(work, 'SIGKILL', 'commit', ...MIDDLE);
    const before = work.digest();
    for (const line of [
      ['resize', 'active.qcow2', '+1M'],
      ['snapshot', '-c', 'one', 'active.qcow2'],
      ['convert', '-O', 'qcow2', 'base.qcow2', 'active.qcow2'],
    ]) {
      const { code, stderr } = work.downfold(...line);
      expect([line, code, stderr]).toEqual([line, 1, expect.stringContaining('downfold resume')]);
    }
    expect(work.digest()).toEqual(before);
    expect(work.downfold('abort', 'active.qcow2').code).toBe(0);
    expect(work.downfold('resize', 'active.qcow2', '+1M').code).toBe(0);
  });

  it('says what cannot be undone; a mixed image is no data of its own, but reads on below', async () => {
    using work = pool.copy();
    await stopped(work, 'SIGKILL', 'commit', ...MIDDLE);
    const { code, stdout, stderr } = work.downfold('abort', 'active.qcow2');
    expect([code, stderr]).toEqual([0, '']);
    expect(stdout.split('\n').slice(0, 4)).toEqual([
      'Job given up.',
      '  what was written cannot be undone; images above read as before',
      '  base.qcow2 is of no point in time by itself (marked so)',
      '  mid.qcow2 is of no point in time by itself (marked so)',
    ]);
    for (const name of ['base.qcow2', 'mid.qcow2']) {
      const refused = work.downfold('map', name);
      expect(refused.code).toBe(1);
      expect(refused.stderr).toContain('is marked mixed since');
    }
    expect(work.downfold('map', 'active.qcow2').code).toBe(0);
    expect(work.downfold('graph', '.').stdout).toMatch(/base\.qcow2 .*MIXED since 20/);
  });

  it('marks a raw base beside it; the mark goes with a later commit that is complete', async () => {
    using work = raw.copy();
    const middle = ['-b', 'base.raw', '--top', 'top.qcow2', 'active.qcow2'];
    await stopped(work, 'SIGKILL', 'commit', ...middle);
    const result = work.json<Abort>('abort', 'active.qcow2');
    expect(result.mixed).toEqual([work.file('base.raw'), work.file('mid.qcow2')]);
    expect(markOf(work, 'base.raw', 'raw')).toBe('mixed');
    expect(existsSync(work.file('base.raw.downfold-mark'))).toBe(true);
    expect(raw.compare(work, 'active.qcow2')).toBe(IDENTICAL);
    expect(work.downfold('commit', '-q', ...middle).code).toBe(0);
    expect(markOf(work, 'base.raw', 'raw')).toBe(null);
    expect(Object.keys(work.digest()).sort()).toEqual([
      'active.qcow2',
      'base.raw',
      'mid.qcow2',
      'top.qcow2',
    ]);
    expect(raw.compare(work, 'base.raw', 'top.qcow2')).toBe(IDENTICAL);
  });

  it.each(Object.keys(KEPT).filter((name) => name !== 'preserve'))(
    'of %s does without an intermediate that somebody deleted, and says what cannot be read now',
    async (strategy) => {
      using work = pool.copy();
      await stopped(work, 'SIGKILL', 'commit', '--strategy', strategy, ...MIDDLE);
      work.must('rm', 'mid.qcow2');
      const { code, stdout } = work.downfold('abort', 'active.qcow2');
      expect(code).toBe(0);
      expect(stdout).toContain('\n  mid.qcow2 is not there: what reads through it cannot be read');
      expect(markOf(work, 'base.qcow2')).toBe(strategy === 'staged' ? null : 'mixed');
      expect(complaints(work, 'base.qcow2')).toEqual([]);
      expect(existsSync(work.file(JOURNAL))).toBe(false);
    },
  );

  it('cannot do without base: the line says what is left to do, and nothing changes', async () => {
    using work = pool.copy();
    await stopped(work, 'SIGKILL', 'commit', ...MIDDLE);
    work.must('mv', 'base.qcow2', 'away');
    const before = work.digest();
    const { code, stderr } = work.downfold('abort', 'active.qcow2');
    expect([code, stderr]).toEqual([
      1,
      expect.stringMatching(
        /\/base\.qcow2: is not there, .*move this very file back .*journal '.*'\n$/,
      ),
    ]);
    expect(work.digest()).toEqual(before);
    work.must('mv', 'away', 'base.qcow2');
    expect(work.downfold('abort', 'active.qcow2').code).toBe(0);
  });

  it('with nothing to give up says so', () => {
    using work = pool.copy();
    const before = work.digest();
    const { code, stdout, stderr } = work.downfold('abort', 'active.qcow2');
    expect([code, stdout]).toEqual([1, '']);
    expect(stderr).toMatch(
      /^downfold: Could not give up the job of 'active\.qcow2': .*no interrupted job.*\n$/,
    );
    expect(work.digest()).toEqual(before);
  });

  it('leaves nothing to resume', async () => {
    using work = pool.copy();
    await stopped(work, 'SIGKILL', 'commit', ...MIDDLE);
    work.json('abort', 'active.qcow2');
    const { code, stderr } = work.downfold('resume', 'active.qcow2');
    expect(code).toBe(1);
    expect(stderr).toContain('no interrupted job');
  });

  it('of a job that is at work is refused, and does not disturb it', async () => {
    using work = pool.copy();
    const job = await copying(work, 'commit', ...MIDDLE);
    const { code, stdout } = whileStill(job, () =>
      work.downfold('abort', '--output', 'json', 'active.qcow2'),
    );
    expect(code).toBe(1);
    expect(JSON.parse(stdout)).toMatchObject({
      error: {
        class: 'COMMIT_LIVE_OWNER',
        desc: expect.stringContaining(`process ${job.pid} on `),
      },
    });
    expect((await job.ended).code).toBe(0);
    expect(pool.compare(work, 'base.qcow2', 'top.qcow2')).toBe(IDENTICAL);
  });

  it.each(['copy-down', 'staged'])(
    'of %s does not mind a source that was written to since, with which resume cannot go on',
    async (strategy) => {
      using work = pool.copy();
      await stopped(work, 'SIGKILL', 'commit', '--strategy', strategy, ...MIDDLE);
      work.must('qemu-io', '-f', 'qcow2', '-c', 'write -P 3 12M 64k', 'top.qcow2');
      expect(work.downfold('resume', 'active.qcow2').stderr).toContain('was written to since');
      expect(work.json<Abort>('abort', 'active.qcow2').undone).toBe(strategy === 'staged');
      for (const name of KEPT[strategy] ?? [])
        expect(pool.compare(work, name), name).toBe(IDENTICAL);
      expect(complaints(work, ...CHAIN)).toEqual([]);
    },
  );

  it('refuses a journal that was edited', async () => {
    using work = pool.copy();
    await stopped(work, 'SIGKILL', 'commit', ...MIDDLE);
    work.must('sed', '-i', '1s/copy-down/copy-dawn/', JOURNAL);
    const before = work.digest();
    const { code, stderr } = work.downfold('abort', 'active.qcow2');
    expect(code).toBe(1);
    expect(stderr).toMatch(/downfold: .* it was edited; it is not touched\n$/);
    expect(work.digest()).toEqual(before);
  });
});

// the calls fail at the very step that is meant
describe.skipIf(!haveQemu || !haveStrace)('abort, too late or twice:', () => {
  it.each(['copy-down', 'depth-first', 'preserve', 'staged'])(
    'past the end of the data of %s it is refused, and resume finishes',
    (strategy) => {
      using work = pool.copy();
      const args = ['commit', '--strategy', strategy, ...MIDDLE];
      const inject = 'pwrite64:error=EIO:when=1';
      // active is relinked last of all that matters
      expect(injected(work, 'active.qcow2', inject, ...args).code).toBe(1);
      const before = work.digest();
      const { code, stdout } = work.downfold('abort', '--output', 'json', 'active.qcow2');
      expect(code).toBe(1);
      expect(JSON.parse(stdout)).toMatchObject({
        error: { class: 'COMMIT_PAST_ABORT', desc: expect.stringContaining('downfold resume') },
      });
      expect(work.digest()).toEqual(before);
      expect(work.downfold('resume', '-q', 'active.qcow2').code).toBe(0);
      expect(backingIn(work, 'active.qcow2')).toBe('base.qcow2 (qcow2)');
      for (const name of ['top.qcow2', 'active.qcow2'])
        expect(pool.compare(work, name), name).toBe(IDENTICAL);
      expect(pool.compare(work, 'base.qcow2', 'top.qcow2')).toBe(IDENTICAL);
    },
  );

  it.each(['copy-down', 'staged'])(
    'interrupted, with %s, it can only be finished, not taken back',
    async (strategy) => {
      using work = pool.copy();
      await stopped(work, 'SIGKILL', 'commit', '--strategy', strategy, ...MIDDLE);
      expect(
        injected(work, JOURNAL, 'unlink:signal=SIGKILL', 'abort', 'active.qcow2').code,
      ).not.toBe(0);
      expect(existsSync(work.file(JOURNAL))).toBe(true);
      const resumed = work.downfold('resume', 'active.qcow2');
      expect(resumed.code).toBe(1);
      expect(resumed.stderr).toMatch(/was given up, .* finish it with: downfold abort\n$/);
      const { mixed } = work.json<Abort>('abort', 'active.qcow2');
      expect(mixed).toHaveLength(strategy === 'staged' ? 0 : 2);
      for (const name of KEPT[strategy] ?? [])
        expect(pool.compare(work, name), name).toBe(IDENTICAL);
      expect(complaints(work, ...CHAIN)).toEqual([]);
      expect(existsSync(work.file(JOURNAL))).toBe(false);
    },
  );
});
