import { setTimeout as sleep } from 'node:timers/promises';
import { nodeCalls } from '@downfold/storage-file';
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
import { type Bench, haveQemu, start } from './support.ts';

const MIB = 1 << 20;
const NAMES = ['base.qcow2', 'mid.qcow2', 'top.qcow2', 'active.qcow2'] as const;
const MIDDLE = ['-b', 'base.qcow2', '--top', 'top.qcow2', 'active.qcow2'];
const STRATEGIES = ['copy-down', 'depth-first', 'preserve', 'staged'] as const;

/** All four allocation cases; data, zeros, a compressed cluster; clusters of other sizes; short layers, and old data past top's end. */
const CHAIN = [
  { name: 'base.qcow2', size: '8M', io: ['write -P 1 0 4M', 'write -P 2 7M 1M'] },
  {
    name: 'mid.qcow2',
    size: '6M',
    backing: 'base.qcow2',
    options: 'cluster_size=4k',
    io: ['write -P 3 1M 2M', 'write -P 4 4100k 300k', 'write -z 5M 200k'],
  },
  {
    name: 'top.qcow2',
    size: '7M',
    backing: 'mid.qcow2',
    options: 'extended_l2=on',
    io: ['write -P 5 2100k 50k', 'write -z 0 64k', 'write -c -P 6 5M 64k', 'write -P 7 6M 100k'],
  },
  {
    name: 'active.qcow2',
    size: '10M',
    backing: 'top.qcow2',
    io: ['write -P 8 1500k 20k', 'write -P 9 9M 64k'],
  },
] as const;

/** Of 8 MiB that an image of `PLAIN` holds, nearly all: what is written beside takes some clusters. */
const DRAINED = 7.5 * MIB;

/** Images of a kind that users have: the same size and clusters everywhere. */
const PLAIN = [
  { name: 'base.qcow2', size: '24M', io: ['write -P 1 0 8M'] },
  { name: 'mid.qcow2', size: '24M', backing: 'base.qcow2', io: ['write -P 2 4M 8M'] },
  { name: 'top.qcow2', size: '24M', backing: 'mid.qcow2', io: ['write -P 3 12M 8M'] },
  { name: 'active.qcow2', size: '24M', backing: 'top.qcow2', io: ['write -P 4 20M 1M'] },
] as const;

const RAW = [
  { name: 'base.raw', size: '4M', format: 'raw', io: ['write -P 1 0 2M'] },
  { name: 'mid.qcow2', size: '4M', backing: 'base.raw', io: ['write -P 2 1M 2M'] },
  { name: 'top.qcow2', size: '5M', backing: 'mid.qcow2', io: ['write -P 3 2M 1M'] },
  { name: 'active.qcow2', size: '5M', backing: 'top.qcow2', io: ['write -P 4 4M 1M'] },
] as const;

let pools: { readonly chain: Pool; readonly plain: Pool; readonly raw: Pool };

beforeAll(() => {
  if (haveQemu) pools = { chain: makePool(CHAIN), plain: makePool(PLAIN), raw: makePool(RAW) };
});
afterAll(() => {
  if (haveQemu) for (const pool of Object.values(pools)) pool[Symbol.dispose]();
});

/** What a dry run says as JSON of what `auto` considered. */
interface AutoPlan {
  readonly strategy: { readonly name: string };
  readonly chosen: {
    readonly why: string;
    readonly candidates: readonly Readonly<Record<string, unknown>>[];
  };
}

function expectNarrow(text: string): void {
  for (const line of text.split('\n')) expect(line.length, line).toBeLessThanOrEqual(80);
}

/** Without colours, as in a pipe of somebody who forbids them. */
function plainly(work: Bench, ...args: readonly string[]): string {
  const { code, stdout, stderr } = work.downfold(...args);
  expect([code, stderr]).toEqual([0, '']);
  expect(stdout).not.toContain('\x1b');
  expectNarrow(stdout);
  return stdout;
}

describe.skipIf(!haveQemu)('commit --strategy', () => {
  it.each([...STRATEGIES, 'auto'])(
    '%s moves the middle of a chain down; QEMU finds every disk as it must be',
    (strategy) => {
      const { chain } = pools;
      using work = chain.copy();
      const args = ['commit', '--verify', '--strategy', strategy, ...MIDDLE];
      const result = work.json<{ strategy: string; invalidated: readonly string[] }>(...args);
      expect(chain.compare(work, 'base.qcow2', 'top.qcow2')).toBe(IDENTICAL);
      for (const name of ['top.qcow2', 'active.qcow2'])
        expect(chain.compare(work, name)).toBe(IDENTICAL);
      expect(complaints(work, ...NAMES)).toEqual([]);
      expect(backingIn(work, 'active.qcow2')).toBe('base.qcow2 (qcow2)');
      expect(backingIn(work, 'top.qcow2')).toBe('base.qcow2 (qcow2)');
      const kept = result.strategy === 'preserve';
      if (kept) expect(chain.compare(work, 'mid.qcow2')).toBe(IDENTICAL);
      expect(markOf(work, 'mid.qcow2')).toBe(kept ? null : 'invalid');
      expect(result.invalidated).toEqual(kept ? [] : [work.file('mid.qcow2')]);
      expect(Object.keys(work.digest())).toEqual([...NAMES].sort());
    },
  );

  it.each(STRATEGIES)('%s says what it did as JSON, under the same keys', (strategy) => {
    const { plain } = pools;
    using work = plain.copy();
    const result = work.json('commit', '--strategy', strategy, ...MIDDLE);
    expect(Object.keys(result).sort()).toEqual([
      'bytesCopied',
      'bytesSkippedByResume',
      'bytesZeroed',
      'cases',
      'deleted',
      'invalidated',
      'job',
      'operation',
      'relinked',
      'seconds',
      'strategy',
      'undeleted',
      'unmarked',
      'unreadable',
      'verified',
    ]);
    const pushed = strategy === 'preserve' ? 8 : 0;
    expect(result).toMatchObject({
      operation: 'commit',
      strategy,
      bytesCopied: 16 * MIB,
      // what preserve pushes into mid reads as zeros in base
      bytesZeroed: pushed * MIB,
      cases: { unallocated: 8 * MIB, intermediateOnly: 8 * MIB, several: 0, topOnly: 8 * MIB },
      relinked: expect.arrayContaining([
        { image: work.file('active.qcow2'), backing: 'base.qcow2' },
        { image: work.file('top.qcow2'), backing: 'base.qcow2' },
      ]),
    });
  });

  it.each(STRATEGIES)('%s shows its plan and its result in 80 columns', (strategy) => {
    using work = pools.plain.copy();
    const before = work.digest();
    const args = ['commit', '--strategy', strategy, ...MIDDLE];
    const plan = plainly(work, ...args, '--dry-run');
    expect(plan).toContain(`Plan: commit top.qcow2 into base.qcow2 (${strategy})\n`);
    expect(plan).toMatch(
      strategy === 'preserve'
        ? /mid\.qcow2 .* intermediate {2}reads the same\n/
        : /mid\.qcow2 .* intermediate {2}invalid after /,
    );
    expect(plan).toMatch(/\nNothing was written\.\n$/);
    expect(work.digest()).toEqual(before);
    const result = plainly(work, ...args);
    expect(result).toMatch(/^Image committed\.\n {2}16\.0 MiB copied/);
    expect(result).toContain('  active.qcow2 is now backed by base.qcow2\n');
  });

  it.each(STRATEGIES)(
    '%s empties FILE when it is top, as qemu-img does, or not with -d',
    (strategy) => {
      const { plain } = pools;
      for (const drop of [[], ['-d']]) {
        using work = plain.copy();
        expect(work.downfold('commit', '--strategy', strategy, ...drop, 'active.qcow2').code).toBe(
          0,
        );
        for (const name of ['top.qcow2', 'active.qcow2'])
          expect(plain.compare(work, name, 'active.qcow2')).toBe(IDENTICAL);
        expect(complaints(work, ...NAMES)).toEqual([]);
        // depth-first is about the space: it drains top in any case
        const drained = drop.length === 0 || strategy === 'depth-first';
        const rows = work.json<{ depth: number }[]>('map', 'active.qcow2');
        expect(rows.filter(({ depth }) => depth === 0)).toHaveLength(drained ? 0 : 1);
      }
    },
  );

  it.each(['copy-down', 'depth-first', 'preserve'])(
    '%s commits into a raw base, which grows',
    (strategy) => {
      const { raw } = pools;
      using work = raw.copy();
      const args = ['-b', 'base.raw', '--top', 'top.qcow2', 'active.qcow2'];
      expect(work.downfold('commit', '--strategy', strategy, ...args).code).toBe(0);
      expect(raw.compare(work, 'base.raw', 'top.qcow2')).toBe(IDENTICAL);
      for (const name of ['top.qcow2', 'active.qcow2'])
        expect(raw.compare(work, name)).toBe(IDENTICAL);
      expect(backingIn(work, 'active.qcow2')).toBe('base.raw (raw)');
      if (strategy === 'preserve') expect(raw.compare(work, 'mid.qcow2')).toBe(IDENTICAL);
    },
  );
});

describe.skipIf(!haveQemu)('commit --strategy depth-first', () => {
  it.skipIf(nodeCalls.punchHole === null)('gives the space of drained images back', () => {
    using work = pools.plain.copy();
    const before = ['mid.qcow2', 'top.qcow2'].map((name) => hostBytes(work, name));
    work.json('commit', '--strategy', 'depth-first', ...MIDDLE);
    for (const [index, name] of ['mid.qcow2', 'top.qcow2'].entries())
      expect((before[index] ?? 0) - hostBytes(work, name), name).toBeGreaterThan(DRAINED);
  });

  it.skipIf(nodeCalls.punchHole === null)('gives it back as it goes, not at the end', async () => {
    using work = pools.plain.copy();
    const [mid, top] = [hostBytes(work, 'mid.qcow2'), hostBytes(work, 'top.qcow2')];
    const job = start(work, 'commit', '--strategy', 'depth-first', '-r', '8M', ...MIDDLE);
    let ended = false;
    void job.ended.then(() => {
      ended = true;
    });
    while (!ended && mid - hostBytes(work, 'mid.qcow2') < DRAINED) await sleep(20);
    expect(ended).toBe(false);
    expect(hostBytes(work, 'top.qcow2')).toBeGreaterThanOrEqual(top);
    expect((await job.ended).code).toBe(0);
  });
});

describe.skipIf(!haveQemu)('commit --strategy staged', () => {
  it('--keep-undo leaves the old base as an internal snapshot', () => {
    const { chain } = pools;
    using work = chain.copy();
    const { job } = work.json<{ job: string }>(
      'commit',
      '--strategy',
      'staged',
      '--keep-undo',
      ...MIDDLE,
    );
    const name = `downfold-undo-${job}`;
    expect(work.must('qemu-img', 'snapshot', '-l', 'base.qcow2')).toContain(name);
    work.must('qemu-img', 'convert', '-O', 'qcow2', '-l', name, 'base.qcow2', 'undo.qcow2');
    expect(chain.compare(work, 'undo.qcow2', 'base.qcow2')).toBe(IDENTICAL);
    expect(chain.compare(work, 'base.qcow2', 'top.qcow2')).toBe(IDENTICAL);
    expect(chain.compare(work, 'active.qcow2')).toBe(IDENTICAL);
    expect(complaints(work, ...NAMES)).toEqual([]);
  });

  it('without --keep-undo leaves none; other strategies do not know the option', () => {
    using work = pools.plain.copy();
    work.json('commit', '--strategy', 'staged', ...MIDDLE);
    expect(work.must('qemu-img', 'snapshot', '-l', 'base.qcow2')).toBe('');
    const { code, stderr } = work.downfold('commit', '--keep-undo', 'active.qcow2');
    expect(code).toBe(1);
    expect(stderr).toBe('downfold: --keep-undo goes with --strategy staged\n');
  });

  it('--keep-undo where it cannot be had stops before anything is copied, and is given up', () => {
    using work = pools.plain.copy();
    for (const name of ['top.qcow2', 'mid.qcow2'])
      work.must('qemu-img', 'rebase', '-q', '-u', '-b', '', name);
    const narrow = ['-o', 'refcount_bits=1', 'one.qcow2', '8M'];
    work.must('qemu-img', 'create', '-q', '-f', 'qcow2', ...narrow);
    work.must('qemu-img', 'rebase', '-q', '-u', '-b', 'one.qcow2', '-F', 'qcow2', 'top.qcow2');
    const args = ['-b', 'one.qcow2', '--top', 'top.qcow2', 'active.qcow2'];
    const { code, stderr } = work.downfold(
      'commit',
      '--strategy',
      'staged',
      '--keep-undo',
      ...args,
    );
    expect(code).toBe(1);
    expect(stderr).toContain('refcounts of one bit cannot share clusters with an undo snapshot');
    expect(work.downfold('abort', 'active.qcow2').code).toBe(0);
    expect(complaints(work, ...NAMES, 'one.qcow2')).toEqual([]);
    expect(work.json<{ job: string }>('commit', '--strategy', 'staged', ...args).job).not.toBe('');
  });

  it('on a raw base says why it cannot, and changes nothing', () => {
    using work = pools.raw.copy();
    const before = work.digest();
    const args = ['-b', 'base.raw', '--top', 'top.qcow2', 'active.qcow2'];
    const { code, stdout, stderr } = work.downfold('commit', '--strategy', 'staged', ...args);
    expect([code, stdout]).toEqual([1, '']);
    expect(stderr).toMatch(/base\.raw: a raw image has no second mapping.*use another strategy\n$/);
    expect(work.digest()).toEqual(before);
  });
});

describe.skipIf(!haveQemu)('commit --strategy auto', () => {
  it('lists every candidate with its figures', () => {
    using work = pools.plain.copy();
    const before = work.digest();
    const args = ['commit', '--dry-run', '--strategy', 'auto', ...MIDDLE];
    const { strategy, chosen } = work.json<AutoPlan>(...args);
    expect(chosen.candidates.map((one) => one['strategy']).sort()).toEqual([...STRATEGIES].sort());
    for (const one of chosen.candidates)
      expect(one).toEqual({
        strategy: expect.any(String),
        refused: null,
        bytesWritten: expect.any(Number),
        temporaryBytes: expect.any(Number),
        invalidated: one['strategy'] === 'preserve' ? 0 : 1,
      });
    const byName = new Map(chosen.candidates.map((one) => [one['strategy'], one]));
    expect(byName.get('staged')?.['temporaryBytes']).toBeGreaterThan(0);
    expect(strategy.name).toBe('copy-down');
    expect(chosen.why).toMatch(/^copy-down: 16\.0 MiB to move/);
    const human = plainly(work, ...args);
    expect(human.replaceAll('\n', ' ')).toContain(` Chosen: ${chosen.why}. `);
    for (const name of STRATEGIES)
      expect(human).toMatch(new RegExp(`\\n {2}${name} +\\d.* written`));
    expect(work.digest()).toEqual(before);
  });

  it('on a raw base says why not staged, takes another, and says why', () => {
    const { raw } = pools;
    using work = raw.copy();
    const args = ['--strategy', 'auto', '-b', 'base.raw', '--top', 'top.qcow2', 'active.qcow2'];
    const { chosen } = work.json<AutoPlan>('commit', '--dry-run', ...args);
    const staged = chosen.candidates.find((one) => one['strategy'] === 'staged');
    expect(staged).toMatchObject({
      refused: expect.stringContaining('a raw image has no second mapping'),
      bytesWritten: null,
    });
    const human = plainly(work, 'commit', '--dry-run', ...args);
    expect(human).toMatch(/\n {2}staged +cannot {2}base\.raw: a raw image has no second mapping/);
    expect(plainly(work, 'commit', ...args)).toContain(`\n  chosen: ${chosen.why}\n`);
    expect(raw.compare(work, 'base.raw', 'top.qcow2')).toBe(IDENTICAL);
    expect(raw.compare(work, 'active.qcow2')).toBe(IDENTICAL);
  });

  it('tells as JSON what it chose and why', () => {
    using work = pools.plain.copy();
    const result = work.json('commit', '--strategy', 'auto', ...MIDDLE);
    expect(result).toMatchObject({
      strategy: 'copy-down',
      chosen: expect.stringMatching(/^copy-down: /),
    });
  });
});
