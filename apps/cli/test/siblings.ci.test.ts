import { qcow2 } from '@downfold/qcow2';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  backingIn,
  complaints,
  hashes,
  IDENTICAL,
  makePool,
  markOf,
  type Pool,
} from './qemu-pool.ts';
import { type Bench, backend, bench, diskOf, haveQemu, makeImage } from './support.ts';

const MIDDLE = ['-b', 'base.qcow2', '--top', 'top.qcow2', 'active.qcow2'];
const CHAIN = ['base.qcow2', 'mid.qcow2', 'top.qcow2', 'active.qcow2'] as const;

/** What reads through base or mid, and not through top: a commit of top into base strands it. */
const SIBLINGS = [
  'near.qcow2',
  'above.qcow2',
  'pool/far.qcow2',
  'pool/linked.qcow2',
  'other/through.qcow2',
] as const;
/** The directories besides the chain's in which they lie; `door` is a link to `other`. */
const POOLS = ['--pool', 'pool', '--pool', 'door'];

let pool: Pool;

/**
 * The chain; `near` on mid and `above` on near, beside it; `far` on base, in another directory; `linked` on a hard link to base;
 * `through` on base by way of a linked directory; and `twin` on top, which is not stranded.
 */
function makeShared(): Pool {
  const chain = makePool([
    { name: 'base.qcow2', size: '8M', io: ['write -P 1 0 4M'] },
    { name: 'mid.qcow2', size: '8M', backing: 'base.qcow2', io: ['write -P 2 1M 2M'] },
    { name: 'top.qcow2', size: '8M', backing: 'mid.qcow2', io: ['write -P 3 2M 3M'] },
    { name: 'active.qcow2', size: '8M', backing: 'top.qcow2', io: ['write -P 4 5M 1M'] },
    { name: 'near.qcow2', size: '8M', backing: 'mid.qcow2', io: ['write -P 5 0 64k'] },
    { name: 'above.qcow2', size: '8M', backing: 'near.qcow2', io: ['write -P 6 6M 64k'] },
    { name: 'twin.qcow2', size: '8M', backing: 'top.qcow2', io: ['write -P 7 0 64k'] },
  ]);
  const { origin } = chain;
  origin.must('mkdir', 'pool', 'other');
  origin.must('ln', 'base.qcow2', 'pool/hard.qcow2');
  origin.must('ln', '-s', 'other', 'door');
  origin.must('ln', '-s', '..', 'other/way');
  const overlay = (name: string, backing: string, pattern: number): void => {
    origin.must('qemu-img', 'create', '-q', '-f', 'qcow2', '-b', backing, '-F', 'qcow2', name);
    origin.must('qemu-io', '-f', 'qcow2', '-c', `write -P ${pattern} 3M 64k`, name);
  };
  overlay('pool/far.qcow2', '../base.qcow2', 8);
  overlay('pool/linked.qcow2', 'hard.qcow2', 9);
  overlay('other/through.qcow2', 'way/base.qcow2', 10);
  return chain;
}

beforeAll(() => {
  if (haveQemu) pool = makeShared();
});
afterAll(() => {
  if (haveQemu) pool[Symbol.dispose]();
});

/** QEMU writes to an image and finds in it what it wrote. */
function stillWorks(work: Bench, name: string): void {
  work.must('qemu-io', '-f', 'qcow2', '-c', 'write -P 99 7M 64k', '-c', 'read -P 99 7M 64k', name);
}

describe.skipIf(!haveQemu)('a commit under other images', () => {
  it('is refused: every image that it would strand is named, and no byte of any file changes', () => {
    using work = pool.copy();
    const before = hashes(work);
    for (const more of [[], ['--dry-run'], ['--strategy', 'staged'], ['--strategy', 'auto']]) {
      const { code, stdout, stderr } = work.downfold('commit', ...more, ...POOLS, ...MIDDLE);
      expect([more, code, stdout]).toEqual([more, 1, '']);
      for (const name of SIBLINGS) expect(stderr).toContain(work.file(name));
      expect(stderr).not.toContain('twin.qcow2');
      for (const way of ['--keep-siblings', '--invalidate-siblings', 'downfold rebase'])
        expect(stderr).toContain(way);
      expect(stderr).toMatch(/^downfold: Could not commit 'active\.qcow2': .*\n$/);
    }
    expect(hashes(work)).toEqual(before);
  });

  it('says so as JSON, with the images as a list', () => {
    using work = pool.copy();
    const { stdout } = work.downfold('commit', '--output', 'json', ...POOLS, ...MIDDLE);
    const { error } = JSON.parse(stdout) as {
      error: { class: string; details: { images: string[] } };
    };
    expect(error.class).toBe('COMMIT_STRANDS');
    expect(error.details.images.sort()).toEqual(SIBLINGS.map((name) => work.file(name)).sort());
  });

  it('--keep-siblings: nobody but base changes, and all of them keep working', () => {
    using work = pool.copy();
    const result = work.json('commit', '--keep-siblings', ...POOLS, ...MIDDLE);
    expect(result).toMatchObject({ strategy: 'preserve', invalidated: [] });
    expect(pool.compare(work, 'base.qcow2', 'top.qcow2')).toBe(IDENTICAL);
    const others = ['mid.qcow2', 'top.qcow2', 'active.qcow2', 'twin.qcow2', ...SIBLINGS];
    for (const name of others) expect(pool.compare(work, name), name).toBe(IDENTICAL);
    expect(complaints(work, 'base.qcow2', ...others)).toEqual([]);
    expect(backingIn(work, 'pool/far.qcow2')).toBe('../base.qcow2 (qcow2)');
    expect(backingIn(work, 'near.qcow2')).toBe('mid.qcow2 (qcow2)');
    for (const name of SIBLINGS) stillWorks(work, name);
    expect(complaints(work, ...SIBLINGS)).toEqual([]);
  });

  it('--keep-siblings goes with auto, which says that only preserve can; not with others', () => {
    using work = pool.copy();
    const before = hashes(work);
    const keep = ['commit', '--keep-siblings', ...POOLS];
    const { strategy, chosen } = work.json<{
      strategy: { name: string };
      chosen: { why: string; candidates: { strategy: string; refused: string | null }[] };
    }>(...keep, '--dry-run', '--strategy', 'auto', ...MIDDLE);
    expect(strategy.name).toBe('preserve');
    expect(chosen.why).toBe('preserve: the only one that can do it');
    for (const one of chosen.candidates)
      expect(one.refused).toBe(
        one.strategy === 'preserve' ? null : 'would change what other images read',
      );
    for (const name of ['copy-down', 'depth-first', 'staged']) {
      const { code, stderr } = work.downfold(...keep, '--strategy', name, ...MIDDLE);
      expect(code).toBe(1);
      expect(stderr).toMatch(/cannot keep what other images read: .*use --strategy preserve\n$/);
    }
    expect(hashes(work)).toEqual(before);
  });

  it.each(['copy-down', 'depth-first', 'staged', 'preserve'])(
    '--invalidate-siblings with %s marks those that lost their meaning',
    (strategy) => {
      using work = pool.copy();
      const accept = ['--strategy', strategy, '--invalidate-siblings', ...POOLS];
      const lost = strategy === 'preserve' ? [] : ['mid.qcow2', ...SIBLINGS];
      const plan = work.downfold('commit', '--dry-run', ...accept, ...MIDDLE).stdout;
      for (const name of SIBLINGS)
        expect(plan.includes(`\n${name} loses its meaning: `)).toBe(lost.includes(name));
      expect(plan).toMatch(/\ntwin\.qcow2 \(over top\.qcow2\) reads as before\.\n/);
      const { invalidated, unmarked } = work.json<{ invalidated: string[]; unmarked: object[] }>(
        'commit',
        ...accept,
        ...MIDDLE,
      );
      expect(unmarked).toEqual([]);
      expect(invalidated.toSorted()).toEqual(lost.map((name) => work.file(name)).sort());
      for (const name of [...CHAIN, ...SIBLINGS, 'twin.qcow2'])
        expect(markOf(work, name), name).toBe(lost.includes(name) ? 'invalid' : null);
      for (const name of ['top.qcow2', 'active.qcow2', 'twin.qcow2'])
        expect(pool.compare(work, name), name).toBe(IDENTICAL);
      expect(complaints(work, ...CHAIN, ...SIBLINGS, 'twin.qcow2')).toEqual([]);
    },
  );

  it('--invalidate-siblings with auto still harms nobody, when that can be', () => {
    using work = pool.copy();
    const accept = ['--strategy', 'auto', '--invalidate-siblings', ...POOLS];
    const { chosen } = work.json<{ chosen: { why: string } }>(
      'commit',
      '--dry-run',
      ...accept,
      ...MIDDLE,
    );
    expect(chosen.why).toMatch(/^preserve: keeps what 5 other images read \(/);
  });

  it('relinks overlays of top other than the leaf like it', () => {
    using work = pool.copy();
    const accept = ['-q', '--invalidate-siblings', ...POOLS];
    expect(work.downfold('commit', ...accept, ...MIDDLE).code).toBe(0);
    for (const name of ['active.qcow2', 'twin.qcow2'])
      expect(backingIn(work, name)).toBe('base.qcow2 (qcow2)');
    expect(backingIn(work, 'near.qcow2')).toBe('mid.qcow2 (qcow2)');
  });
});

describe.skipIf(!haveQemu)('an image that lost its meaning', () => {
  /** The pool after a commit that invalidated the siblings. */
  function committed(): Bench {
    const work = pool.copy();
    work.json('commit', '--invalidate-siblings', ...POOLS, ...MIDDLE);
    return work;
  }

  it('is refused as data, unless the user insists', () => {
    using work = committed();
    for (const name of ['mid.qcow2', ...SIBLINGS]) {
      const { code, stdout, stderr } = work.downfold('map', name);
      expect([name, code, stdout]).toEqual([name, 1, '']);
      expect(stderr).toMatch(/is marked invalid since .* by job .*'--force-invalid'/);
    }
    const forced = (...args: string[]): number | null =>
      work.downfold(args[0] ?? '', '--force-invalid', ...args.slice(1)).code;
    expect(forced('map', '--allow', '.', 'pool/far.qcow2')).toBe(0);
    expect(forced('compare', 'near.qcow2', 'near.qcow2')).toBe(0);
  });

  it('cannot be committed, streamed into or rebased', () => {
    using work = committed();
    const before = hashes(work);
    for (const args of [
      ['commit', 'near.qcow2'],
      ['stream', 'above.qcow2'],
      ['rebase', '-b', '', 'near.qcow2'],
    ]) {
      const { code, stderr } = work.downfold(...args);
      expect([args, code]).toEqual([args, 1]);
      expect(stderr).toContain('is marked invalid since');
    }
    expect(hashes(work)).toEqual(before);
  });

  it('is shown by graph', () => {
    using work = committed();
    const { stdout } = work.downfold('graph', '.');
    for (const name of ['mid.qcow2', ...SIBLINGS])
      expect(stdout).toMatch(new RegExp(`${name.replace(/.*\//, '')} .*INVALID since 20`));
    expect(stdout.match(/INVALID/g)).toHaveLength(1 + SIBLINGS.length);
  });

  it.each(['copy-down', 'depth-first', 'preserve', 'staged'])(
    'stands in the way of no second commit, with %s',
    (strategy) => {
      using work = committed();
      const overlay = ['-b', 'active.qcow2', '-F', 'qcow2', 'next.qcow2'];
      work.must('qemu-img', 'create', '-q', '-f', 'qcow2', ...overlay);
      work.must('qemu-io', '-f', 'qcow2', '-c', 'write -P 11 4M 1M', 'next.qcow2');
      work.must('rm', 'twin.qcow2', 'top.qcow2');
      const marked = SIBLINGS.map((name) => work.must('sha256sum', name));
      const args = ['--strategy', strategy, '-b', 'base.qcow2', '--top', 'active.qcow2'];
      const { code, stderr } = work.downfold('commit', ...args, ...POOLS, 'next.qcow2');
      expect([code, stderr]).toEqual([0, '']);
      expect(pool.compare(work, 'base.qcow2', 'active.qcow2')).toBe(IDENTICAL);
      work.must('qemu-io', '-f', 'qcow2', '-c', 'read -P 11 4M 1M', 'next.qcow2');
      expect(complaints(work, 'base.qcow2', 'active.qcow2', 'next.qcow2')).toEqual([]);
      expect(SIBLINGS.map((name) => work.must('sha256sum', name))).toEqual(marked);
    },
  );
});

it('keeps what is read through an image that an abandoned job left mixed', async () => {
  using work = bench();
  const made = { layer: 1, mebibytes: 4 };
  await makeImage(work, 'golden.qcow2', { ...made, held: [0, 1, 2, 3], below: null });
  await makeImage(work, 'mixed.qcow2', { ...made, layer: 2, held: [1], below: 'golden.qcow2' });
  await makeImage(work, 'above.qcow2', { ...made, layer: 3, held: [0], below: 'mixed.qcow2' });
  await makeImage(work, 'other.qcow2', { ...made, layer: 4, held: [1, 2], below: 'golden.qcow2' });
  {
    const storage = await backend.open(work.file('mixed.qcow2'), 'write');
    await using image = await qcow2.open(storage, { mode: 'write' });
    await image.setMark({
      state: 'mixed',
      job: 'an-earlier-one',
      date: '2026-01-01T00:00:00.000Z',
    });
  }
  const shown = await diskOf(work, 'above.qcow2');
  expect(work.downfold('commit', '-d', '--keep-siblings', 'other.qcow2')).toMatchObject({
    code: 0,
    stderr: '',
  });
  expect(await diskOf(work, 'above.qcow2')).toBe(shown);
  expect(work.json('info', 'mixed.qcow2')).toMatchObject({ 'x-mark': { state: 'mixed' } });
});
