import { existsSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { backingIn, complaints, hashes, IDENTICAL, makePool, type Pool } from './qemu-pool.ts';
import { haveStrace, injected, JOURNAL, LARGE, stopped } from './stopped-job.ts';
import { type Bench, haveQemu } from './support.ts';

/** Short layers that hide old data, clusters of other sizes, zeros and compressed clusters; the leaf is shorter than what it reads. */
const CHAIN = [
  { name: 'base.raw', size: '8M', format: 'raw', io: ['write -P 1 0 4M', 'write -P 2 7M 1M'] },
  {
    name: 'mid.qcow2',
    size: '6M',
    backing: 'base.raw',
    options: 'cluster_size=4k',
    io: ['write -P 3 1M 2M', 'write -P 4 4100k 300k', 'write -z 5M 200k'],
  },
  {
    name: 'top.qcow2',
    size: '9M',
    backing: 'mid.qcow2',
    options: 'extended_l2=on',
    io: ['write -P 5 2100k 50k', 'write -z 0 64k', 'write -c -P 6 5M 64k', 'write -P 7 6M 100k'],
  },
  { name: 'active.qcow2', size: '8M', backing: 'top.qcow2', io: ['write -P 8 1500k 20k'] },
] as const;
const BELOW = ['base.raw', 'mid.qcow2', 'top.qcow2'] as const;

let pools: { readonly chain: Pool; readonly large: Pool };
beforeAll(() => {
  if (haveQemu) pools = { chain: makePool(CHAIN), large: makePool(LARGE) };
});
afterAll(() => {
  if (haveQemu) for (const pool of Object.values(pools)) pool[Symbol.dispose]();
});

function sums(work: Bench, names: readonly string[]): string {
  return work.must('sha256sum', ...names);
}

describe.skipIf(!haveQemu)('stream', () => {
  it.each([
    [[], 'none', ['-b', '']],
    [['-b', 'base.raw'], 'base.raw (raw)', ['-b', 'base.raw', '-F', 'raw']],
    [['-b', 'mid.qcow2'], 'mid.qcow2 (qcow2)', ['-b', 'mid.qcow2', '-F', 'qcow2']],
  ])('%j pulls what lies between, and nothing reads differently', (args, backing, theirs) => {
    const { chain } = pools;
    using work = chain.copy();
    const before = sums(work, BELOW);
    const result = work.json('stream', '--verify', ...args, 'active.qcow2');
    expect(result).toMatchObject({
      operation: 'stream',
      strategy: 'stream',
      invalidated: [],
      verified: true,
      relinked: [
        { image: work.file('active.qcow2'), backing: backing === 'none' ? null : args.at(-1) },
      ],
    });
    expect(chain.compare(work, 'active.qcow2')).toBe(IDENTICAL);
    expect(backingIn(work, 'active.qcow2')).toBe(backing);
    expect(complaints(work, 'active.qcow2')).toEqual([]);
    expect(sums(work, BELOW)).toBe(before);
    // what QEMU makes of the same request
    using other = chain.copy();
    other.must('qemu-img', 'rebase', '-f', 'qcow2', ...theirs, 'active.qcow2');
    const compare = ['compare', '-f', 'qcow2', '-F', 'qcow2', 'active.qcow2'];
    expect(work.must('qemu-img', ...compare, other.file('active.qcow2'))).toBe(IDENTICAL);
    expect(backingIn(other, 'active.qcow2')).toBe(backing);
    expect(Object.keys(work.digest())).toEqual(Object.keys(other.digest()));
  });

  it('stands alone: its backing files may go', () => {
    using work = pools.chain.copy();
    const { code, stdout } = work.downfold('stream', 'active.qcow2');
    expect(code).toBe(0);
    expect(stdout).toMatch(/^Image streamed\.\n {2}.* copied/);
    expect(stdout).toContain('\n  active.qcow2 stands alone now');
    work.must('rm', ...BELOW);
    expect(pools.chain.compare(work, 'active.qcow2')).toBe(IDENTICAL);
  });

  it('into an image with overlays changes nothing that they read', () => {
    using work = pools.chain.copy();
    expect(work.downfold('stream', 'mid.qcow2').code).toBe(0);
    for (const name of ['mid.qcow2', 'top.qcow2', 'active.qcow2'])
      expect(pools.chain.compare(work, name), name).toBe(IDENTICAL);
    expect(backingIn(work, 'mid.qcow2')).toBe('none');
  });

  it.each([
    ['top.qcow2', 'base.raw (raw)'],
    ['./top.qcow2', 'base.raw (raw)'],
    ['DIRECTORY/top.qcow2', 'DIRECTORY/base.raw (raw)'],
  ])('keeps a name like %s relative, or not', (old, becomes) => {
    using work = pools.chain.copy();
    const here = (name: string): string => name.replace('DIRECTORY', work.path);
    const relink = ['rebase', '-u', '-b', here(old), '-F', 'qcow2', 'active.qcow2'];
    work.must('qemu-img', ...relink);
    expect(work.downfold('stream', '-b', 'base.raw', 'active.qcow2').code).toBe(0);
    expect(backingIn(work, 'active.qcow2')).toBe(here(becomes));
    expect(pools.chain.compare(work, 'active.qcow2')).toBe(IDENTICAL);
  });

  it('with --dry-run shows the plan in 80 columns, and writes nothing', () => {
    using work = pools.chain.copy();
    const before = hashes(work);
    const { code, stdout } = work.downfold(
      'stream',
      '--dry-run',
      '-b',
      'mid.qcow2',
      'active.qcow2',
    );
    expect(code).toBe(0);
    expect(stdout).toMatch(/^Plan: pull all above mid\.qcow2 into active\.qcow2 \(stream\)\n/);
    expect(stdout).toMatch(/\nactive\.qcow2 .* receives {2,}reads the same, on mid\.qcow2\n/);
    expect(stdout).toMatch(/\nNothing was written\.\n$/);
    for (const line of stdout.split('\n')) expect(line.length, line).toBeLessThanOrEqual(80);
    const alone = work.downfold('stream', '--dry-run', 'active.qcow2').stdout;
    expect(alone).toMatch(/^Plan: pull everything into active\.qcow2 \(stream\)\n/);
    const plan = work.json('stream', '--dry-run', 'active.qcow2');
    expect(plan).toMatchObject({ planVersion: 1, request: { operation: 'stream', base: null } });
    expect(hashes(work)).toEqual(before);
  });

  it.each([
    [['base.raw', '-f', 'raw'], 'does not have a backing file'],
    [['-b', 'top.qcow2', 'active.qcow2'], 'there is nothing to pull'],
    [['-b', 'active.qcow2', 'active.qcow2'], 'does not lie below'],
    [['-b', 'gone', 'active.qcow2'], "Did not find 'gone' in the backing chain"],
    [['-b', 'active.qcow2', 'top.qcow2'], "Did not find 'active.qcow2' in the backing chain"],
    [['gone'], 'no such file'],
    [['--strategy', 'staged', 'active.qcow2'], "unknown option '--strategy'"],
    [['--on-error', 'ignore', 'active.qcow2'], 'Allowed choices are report, stop, retry.'],
  ])('refuses %j, and changes nothing', (args, why) => {
    using work = pools.chain.copy();
    const before = hashes(work);
    const { code, stdout, stderr } = work.downfold('stream', ...args);
    expect([code, stdout]).toEqual([1, '']);
    expect(stderr).toContain(why);
    expect(stderr).toMatch(/^downfold: .*\n$/);
    expect(hashes(work)).toEqual(before);
  });
});

describe.skipIf(!haveQemu)('stream, interrupted,', () => {
  it.each(['SIGINT', 'SIGKILL'] as const)('by %s is resumed', async (signal) => {
    const { large } = pools;
    using work = large.copy();
    await stopped(work, signal, 'stream', '-b', 'base.qcow2', 'active.qcow2');
    for (const { name } of LARGE) expect(large.compare(work, name), name).toBe(IDENTICAL);
    expect(backingIn(work, 'active.qcow2')).toBe('top.qcow2 (qcow2)');
    const { code, stdout } = work.downfold('resume', 'active.qcow2');
    expect(code).toBe(0);
    expect(stdout).toMatch(/^Image streamed\.\n/);
    for (const { name } of LARGE) expect(large.compare(work, name), name).toBe(IDENTICAL);
    expect(backingIn(work, 'active.qcow2')).toBe('base.qcow2 (qcow2)');
    expect(complaints(work, 'active.qcow2')).toEqual([]);
    expect(Object.keys(work.digest())).not.toContain(JOURNAL);
  });

  it('is given up: everything reads as before, and the image keeps its backing file', async () => {
    const { large } = pools;
    using work = large.copy();
    await stopped(work, 'SIGKILL', 'stream', 'active.qcow2');
    const result = work.json('abort', 'active.qcow2');
    expect(result).toMatchObject({ strategy: 'stream', undone: true, mixed: [] });
    for (const { name } of LARGE) expect(large.compare(work, name), name).toBe(IDENTICAL);
    expect(backingIn(work, 'active.qcow2')).toBe('top.qcow2 (qcow2)');
    expect(complaints(work, 'active.qcow2')).toEqual([]);
  });

  // QEMU writes the header first, and loses what was pulled
  it.skipIf(!haveStrace)(
    'reads the same at every flush at which it is killed, and is resumed',
    () => {
      const { chain } = pools;
      let flushes = 0;
      for (let killed = true; killed; flushes++) {
        using work = chain.copy();
        const inject = `fdatasync:signal=SIGKILL:when=${flushes + 1}`;
        killed = injected(work, 'active.qcow2', inject, 'stream', 'active.qcow2').code !== 0;
        expect(chain.compare(work, 'active.qcow2'), inject).toBe(IDENTICAL);
        // before the journal says what it is for, nothing has happened
        const next = existsSync(work.file(JOURNAL)) ? 'resume' : 'stream';
        if (killed) expect(work.downfold(next, 'active.qcow2').code, inject).toBe(0);
        expect(chain.compare(work, 'active.qcow2'), inject).toBe(IDENTICAL);
        expect(backingIn(work, 'active.qcow2')).toBe('none');
        expect(complaints(work, 'active.qcow2')).toEqual([]);
      }
      expect(flushes).toBeGreaterThan(3);
    },
  );
});
