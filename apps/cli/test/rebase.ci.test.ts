import { existsSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { backingIn, complaints, hashes, IDENTICAL, makePool, type Pool } from './qemu-pool.ts';
import { haveStrace, injected, JOURNAL, LARGE, stopped } from './stopped-job.ts';
import { type Bench, haveQemu } from './support.ts';

/** A chain, and images of other content and sizes to rebase it onto. */
const IMAGES = [
  { name: 'base.raw', size: '8M', format: 'raw', io: ['write -P 1 0 4M', 'write -P 2 7M 1M'] },
  {
    name: 'mid.qcow2',
    size: '6M',
    backing: 'base.raw',
    options: 'cluster_size=4k',
    io: ['write -P 3 1M 2M', 'write -P 4 4100k 300k', 'write -z 5M 200k'],
  },
  {
    name: 'active.qcow2',
    size: '8M',
    backing: 'mid.qcow2',
    io: ['write -P 8 1500k 20k', 'write -z 3M 256k', 'write -c -P 9 512k 64k'],
  },
  { name: 'same.qcow2', size: '8M', backing: 'base.raw', io: ['write -P 3 1M 2M'] },
  { name: 'short.qcow2', size: '3M', io: ['write -P 3 0 3M'] },
  {
    name: 'long.qcow2',
    size: '12M',
    options: 'extended_l2=on',
    io: ['write -P 1 0 4M', 'write -P 77 4M 8M'],
  },
  { name: 'far.qcow2', size: '8M', backing: 'long.qcow2', io: ['write -z 5M 3M'] },
  { name: 'other.raw', size: '8M', format: 'raw', io: ['write -P 5 2M 4M'] },
] as const;
const OTHERS = IMAGES.map(({ name }) => name).filter((name) => name !== 'active.qcow2');

const formatOf = (name: string): string => (name.endsWith('.raw') ? 'raw' : 'qcow2');

let pools: { readonly images: Pool; readonly large: Pool };
beforeAll(() => {
  if (!haveQemu) return;
  const large = makePool([...LARGE, { name: 'new.qcow2', size: '32M', io: ['write -P 9 0 32M'] }]);
  pools = { images: makePool(IMAGES), large };
});
afterAll(() => {
  if (haveQemu) for (const pool of Object.values(pools)) pool[Symbol.dispose]();
});

/** What both tools take: the new backing file, and its format. */
function onto(name: string): readonly string[] {
  return name === '' ? ['-b', ''] : ['-b', name, '-F', formatOf(name)];
}

/** Clusters that hold data of an image, as QEMU counts them. */
function allocated(work: Bench, name: string): number {
  const checked = work.must('qemu-img', 'check', '-f', 'qcow2', '--output=json', name);
  return (JSON.parse(checked) as { 'allocated-clusters': number })['allocated-clusters'];
}

describe.skipIf(!haveQemu)('rebase', () => {
  it.each([
    'base.raw',
    'mid.qcow2',
    'same.qcow2',
    'short.qcow2',
    'long.qcow2',
    'far.qcow2',
    'other.raw',
    '',
  ])("-b '%s' leaves what the image shows, as qemu-img does", (name) => {
    const { images } = pools;
    using work = images.copy();
    const before = work.must('sha256sum', ...OTHERS);
    const result = work.json('rebase', ...onto(name), 'active.qcow2');
    const backing = name === '' ? null : name;
    expect(result).toMatchObject({
      operation: 'rebase',
      strategy: 'rebase',
      invalidated: [],
      relinked: [{ image: work.file('active.qcow2'), backing }],
    });
    expect(images.compare(work, 'active.qcow2')).toBe(IDENTICAL);
    expect(backingIn(work, 'active.qcow2')).toBe(
      name === '' ? 'none' : `${name} (${formatOf(name)})`,
    );
    expect(complaints(work, 'active.qcow2')).toEqual([]);
    expect(work.must('sha256sum', ...OTHERS)).toBe(before);
    expect(Object.keys(work.digest())).toEqual(Object.keys(images.origin.digest()));
    using other = images.copy();
    other.must('qemu-img', 'rebase', '-f', 'qcow2', ...onto(name), 'active.qcow2');
    expect(backingIn(work, 'active.qcow2')).toBe(backingIn(other, 'active.qcow2'));
    const compare = ['compare', '-f', 'qcow2', '-F', 'qcow2', 'active.qcow2'];
    expect(work.must('qemu-img', ...compare, other.file('active.qcow2'))).toBe(IDENTICAL);
    // what is the same over the new backing file is not copied
    expect(allocated(work, 'active.qcow2')).toBeLessThanOrEqual(allocated(other, 'active.qcow2'));
  });

  it.each(['compat=1.1', 'compat=0.10', 'extended_l2=on', 'cluster_size=512'])(
    'of an image that stood alone, with %s, hides all that the backing file holds',
    (options) => {
      using work = pools.images.copy();
      work.must('qemu-img', 'create', '-q', '-f', 'qcow2', '-o', options, 'alone', '8000k');
      const io = ['write -P 7 1M 64k', 'write -c -P 6 2M 64k', 'write -z 3M 100k', 'discard 1M 4k'];
      work.must('qemu-io', '-f', 'qcow2', ...io.flatMap((one) => ['-c', one]), 'alone');
      work.must('cp', 'alone', 'was');
      for (const name of ['long.qcow2', 'other.raw']) {
        work.must('cp', 'was', 'alone');
        expect(work.downfold('rebase', ...onto(name), 'alone').code).toBe(0);
        const compare = ['compare', '-f', 'qcow2', '-F', 'qcow2', 'alone', 'was'];
        expect(work.must('qemu-img', ...compare)).toBe(IDENTICAL);
        expect(complaints(work, 'alone')).toEqual([]);
      }
    },
  );

  it('copies nothing where both backing files show the same', () => {
    using work = pools.images.copy();
    work.must('qemu-img', 'convert', '-O', 'qcow2', '-f', 'qcow2', 'mid.qcow2', 'twin.qcow2');
    const before = allocated(work, 'active.qcow2');
    expect(work.downfold('rebase', ...onto('twin.qcow2'), 'active.qcow2').code).toBe(0);
    expect(allocated(work, 'active.qcow2')).toBe(before);
    expect(pools.images.compare(work, 'active.qcow2')).toBe(IDENTICAL);
  });

  it('of an image with overlays changes nothing that they read', () => {
    using work = pools.images.copy();
    expect(work.downfold('rebase', ...onto('other.raw'), 'mid.qcow2').code).toBe(0);
    for (const name of ['mid.qcow2', 'active.qcow2'])
      expect(pools.images.compare(work, name), name).toBe(IDENTICAL);
  });

  it('of a whole chain that stood on one base onto another', () => {
    using work = pools.large.copy();
    expect(work.downfold('rebase', ...onto('new.qcow2'), 'mid.qcow2').code).toBe(0);
    for (const { name } of LARGE) expect(pools.large.compare(work, name), name).toBe(IDENTICAL);
  });

  it('gives a backing file to an image that had none', () => {
    using work = pools.images.copy();
    expect(work.downfold('rebase', ...onto('other.raw'), 'short.qcow2').code).toBe(0);
    expect(backingIn(work, 'short.qcow2')).toBe('other.raw (raw)');
    expect(pools.images.compare(work, 'short.qcow2')).toBe(IDENTICAL);
  });

  it('stores the name that was said, relative or absolute, whatever there was before', () => {
    using work = pools.images.copy();
    work.must('mkdir', 'deep');
    work.must('mv', 'long.qcow2', 'far.qcow2', 'deep/');
    const far = onto('deep/far.qcow2');
    expect(work.downfold('rebase', ...far, 'active.qcow2').code).toBe(0);
    expect(backingIn(work, 'active.qcow2')).toBe('deep/far.qcow2 (qcow2)');
    work.must('qemu-img', 'rebase', '-u', ...onto(work.file('deep/far.qcow2')), 'active.qcow2');
    expect(work.downfold('rebase', ...onto('base.raw'), 'active.qcow2').code).toBe(0);
    expect(backingIn(work, 'active.qcow2')).toBe('base.raw (raw)');
    expect(pools.images.compare(work, 'active.qcow2')).toBe(IDENTICAL);
  });

  it('takes a relative name as relative to the image, as it stands in the header', () => {
    using work = pools.images.copy();
    work.must('sh', '-c', 'mkdir in && mv *.raw *.qcow2 in/');
    expect(work.downfold('rebase', ...onto('other.raw'), 'in/active.qcow2').code).toBe(0);
    expect(backingIn(work, 'in/active.qcow2')).toBe('other.raw (raw)');
  });

  it('with --dry-run shows the plan in 80 columns, and writes nothing', () => {
    using work = pools.images.copy();
    const before = hashes(work);
    const args = ['rebase', '--dry-run', ...onto('long.qcow2'), 'active.qcow2'];
    const { code, stdout } = work.downfold(...args);
    expect(code).toBe(0);
    expect(stdout).toMatch(/^Plan: rebase active\.qcow2 onto long\.qcow2 \(rebase\)\n/);
    expect(stdout).toMatch(/\nactive\.qcow2 .* receives {2,}reads the same, on long\.qcow2\n/);
    expect(stdout).toMatch(/\nNothing was written\.\n$/);
    for (const line of stdout.split('\n')) expect(line.length, line).toBeLessThanOrEqual(80);
    expect(work.json(...args)).toMatchObject({ planVersion: 1, request: { operation: 'rebase' } });
    expect(hashes(work)).toEqual(before);
  });

  it('says what it did', () => {
    using work = pools.images.copy();
    const { stdout } = work.downfold('rebase', ...onto('long.qcow2'), 'active.qcow2');
    expect(stdout).toMatch(
      /^Image rebased\.\n {2}.* copied.*\n {2}active\.qcow2 is now backed by long/,
    );
    const alone = work.downfold('rebase', '-b', '', 'active.qcow2').stdout;
    expect(alone).toContain('\n  active.qcow2 stands alone now');
    expect(work.downfold('rebase', '-q', '-b', '', 'active.qcow2').stdout).toBe('');
  });

  it.each([
    [
      ['-b', 'base.raw', 'active.qcow2'],
      'say the format of the new backing file; it is not guessed',
    ],
    [['active.qcow2'], 'Must specify backing file (-b) or use simple mode (-u)'],
    [['-b', 'gone', '-F', 'qcow2', 'active.qcow2'], 'gone: no such file'],
    [['-b', 'base.raw', '-F', 'vmdk', 'active.qcow2'], "format 'vmdk' is not known here"],
    [['-b', 'base.raw', '-F', 'qcow2', 'active.qcow2'], 'base.raw: '],
    [['-b', 'mid.qcow2', '-F', 'raw', 'active.qcow2'], 'is raw there, and qcow2 below'],
    [['-b', 'active.qcow2', '-F', 'qcow2', 'active.qcow2'], 'is or reads through'],
    [['-b', 'active.qcow2', '-F', 'qcow2', 'mid.qcow2'], 'is or reads through'],
    [['-u', '-b', 'active.qcow2', '-F', 'qcow2', 'mid.qcow2'], 'is or reads through'],
    [['-u', '-b', 'gone', 'active.qcow2'], 'say the format of the new backing file'],
    [['-u', '-b', 'gone', '-F', 'vmdk', 'active.qcow2'], "format 'vmdk' is not known here"],
    [['-u', '-b', 'nbd:gone', '-F', 'raw', 'active.qcow2'], 'nbd:gone: no such file'],
    [['-t', 'quick', '-b', '', 'active.qcow2'], 'Allowed choices are none, off, writeback'],
    [['-f', 'raw', '-b', 'other.raw', '-F', 'raw', 'base.raw'], 'do not have a backing file'],
  ])('refuses %j, and changes nothing', (args, why) => {
    using work = pools.images.copy();
    const before = hashes(work);
    const { code, stdout, stderr } = work.downfold('rebase', ...args);
    expect([code, stdout]).toEqual([1, '']);
    expect(stderr).toContain(why);
    expect(stderr).toMatch(/^downfold: .*\n$/);
    expect(hashes(work)).toEqual(before);
  });
});

describe.skipIf(!haveQemu)('rebase -u', () => {
  it.each(['base.raw', 'long.qcow2', ''])(
    "-b '%s' changes the reference only, as qemu-img does",
    (name) => {
      using work = pools.images.copy();
      using other = pools.images.copy();
      const before = allocated(work, 'active.qcow2');
      expect(work.json('rebase', '-u', ...onto(name), 'active.qcow2')).toMatchObject({
        bytesCopied: 0,
      });
      other.must('qemu-img', 'rebase', '-u', '-f', 'qcow2', ...onto(name), 'active.qcow2');
      expect(backingIn(work, 'active.qcow2')).toBe(backingIn(other, 'active.qcow2'));
      const compare = ['compare', '-f', 'qcow2', '-F', 'qcow2', 'active.qcow2'];
      expect(work.must('qemu-img', ...compare, other.file('active.qcow2'))).toBe(IDENTICAL);
      expect(allocated(work, 'active.qcow2')).toBe(before);
      expect(complaints(work, 'active.qcow2')).toEqual([]);
    },
  );

  it('mends the name of a backing file that was moved', () => {
    using work = pools.images.copy();
    work.must('mkdir', 'moved');
    work.must('mv', 'mid.qcow2', 'base.raw', 'moved/');
    expect(work.downfold('map', 'active.qcow2').code).toBe(1);
    const moved = onto('moved/mid.qcow2');
    expect(work.downfold('rebase', '-u', ...moved, 'active.qcow2').code).toBe(0);
    expect(backingIn(work, 'active.qcow2')).toBe('moved/mid.qcow2 (qcow2)');
    expect(pools.images.compare(work, 'active.qcow2')).toBe(IDENTICAL);
  });
});

describe.skipIf(!haveQemu)('rebase -u onto a file that is not there', () => {
  it.each(['gone.qcow2', 'no/such/directory/gone.raw'])(
    '%s writes the name and the format, as qemu-img does',
    (name) => {
      using work = pools.images.copy();
      using other = pools.images.copy();
      const before = work.must('sha256sum', ...OTHERS);
      const { stdout } = work.downfold('rebase', '-u', ...onto(name), 'active.qcow2');
      expect(stdout).toContain(`\n  active.qcow2 is now backed by ${name}`);
      other.must('qemu-img', 'rebase', '-u', '-f', 'qcow2', ...onto(name), 'active.qcow2');
      expect(backingIn(work, 'active.qcow2')).toBe(`${name} (${formatOf(name)})`);
      expect(backingIn(work, 'active.qcow2')).toBe(backingIn(other, 'active.qcow2'));
      expect(work.must('sha256sum', ...OTHERS)).toBe(before);
      expect(Object.keys(work.digest())).toEqual(Object.keys(pools.images.origin.digest()));
    },
  );

  it('leads to it once it is there', () => {
    using work = pools.images.copy();
    expect(work.downfold('rebase', '-u', ...onto('new.qcow2'), 'active.qcow2').code).toBe(0);
    work.must('mv', 'mid.qcow2', 'new.qcow2');
    expect(pools.images.compare(work, 'active.qcow2')).toBe(IDENTICAL);
  });

  it('shows it in the plan, which can be stored and run', () => {
    using work = pools.images.copy();
    const args = ['rebase', '-u', ...onto('gone.raw'), 'active.qcow2'];
    const { stdout } = work.downfold(...args, '--plan-out', 'plan.json');
    expect(stdout).toMatch(/^Plan: rebase active\.qcow2 onto .*gone\.raw \(rebase\)\n/);
    expect(stdout).toMatch(/\nactive\.qcow2 .* receives {2,}on gone\.raw, which is not there\n/);
    expect(work.downfold('commit', '--plan', 'plan.json', 'active.qcow2').code).toBe(0);
    expect(backingIn(work, 'active.qcow2')).toBe('gone.raw (raw)');
  });

  it('by an absolute name, and through a link to a directory, of an image that names its backing file so', () => {
    using work = pools.images.copy();
    work.must('sh', '-c', 'mkdir real && ln -s real link');
    work.must('qemu-img', 'rebase', '-u', ...onto(work.file('mid.qcow2')), 'active.qcow2');
    const name = work.file('link/gone.raw');
    expect(work.downfold('rebase', '-u', ...onto(name), 'active.qcow2').code).toBe(0);
    expect(backingIn(work, 'active.qcow2')).toBe(`${name} (raw)`);
  });

  it('or onto one whose own backing file is not there: names are mended in any order', () => {
    using work = pools.images.copy();
    work.must('sh', '-c', 'mkdir moved && mv mid.qcow2 moved/');
    const upper = onto('moved/mid.qcow2');
    expect(work.downfold('rebase', '-u', ...upper, 'active.qcow2').code).toBe(0);
    expect(work.downfold('rebase', '-u', ...onto('../base.raw'), 'moved/mid.qcow2').code).toBe(0);
    expect(pools.images.compare(work, 'active.qcow2')).toBe(IDENTICAL);
    work.must('rm', 'base.raw');
    const loop = work.downfold('rebase', '-u', ...onto('../active.qcow2'), 'moved/mid.qcow2');
    expect([loop.code, loop.stderr]).toEqual([1, expect.stringContaining('is or reads through')]);
  });
});

describe.skipIf(!haveQemu)('rebase, interrupted,', () => {
  it.each(['SIGINT', 'SIGKILL'] as const)('by %s is resumed', async (signal) => {
    const { large } = pools;
    using work = large.copy();
    await stopped(work, signal, 'rebase', ...onto('new.qcow2'), 'active.qcow2');
    expect(large.compare(work, 'active.qcow2')).toBe(IDENTICAL);
    expect(backingIn(work, 'active.qcow2')).toBe('top.qcow2 (qcow2)');
    const { code, stdout } = work.downfold('resume', 'active.qcow2');
    expect(code).toBe(0);
    expect(stdout).toMatch(/^Image rebased\.\n/);
    for (const { name } of LARGE) expect(large.compare(work, name), name).toBe(IDENTICAL);
    expect(large.compare(work, 'new.qcow2')).toBe(IDENTICAL);
    expect(backingIn(work, 'active.qcow2')).toBe('new.qcow2 (qcow2)');
    expect(complaints(work, 'active.qcow2')).toEqual([]);
    expect(Object.keys(work.digest())).not.toContain(JOURNAL);
  });

  it('is given up: everything reads as before, and the image keeps its backing file', async () => {
    const { large } = pools;
    using work = large.copy();
    await stopped(work, 'SIGKILL', 'rebase', ...onto('new.qcow2'), 'active.qcow2');
    const result = work.json('abort', 'active.qcow2');
    expect(result).toMatchObject({ strategy: 'rebase', undone: true, mixed: [] });
    expect(large.compare(work, 'active.qcow2')).toBe(IDENTICAL);
    expect(backingIn(work, 'active.qcow2')).toBe('top.qcow2 (qcow2)');
    expect(complaints(work, 'active.qcow2')).toEqual([]);
  });

  // QEMU writes the header first, and loses what was copied
  it.skipIf(!haveStrace)(
    'reads the same at every flush at which it is killed, and is resumed',
    () => {
      const { images } = pools;
      const args = ['rebase', ...onto('long.qcow2'), 'active.qcow2'];
      let flushes = 0;
      for (let killed = true; killed; flushes++) {
        using work = images.copy();
        const inject = `fdatasync:signal=SIGKILL:when=${flushes + 1}`;
        killed = injected(work, 'active.qcow2', inject, ...args).code !== 0;
        expect(images.compare(work, 'active.qcow2'), inject).toBe(IDENTICAL);
        // before the journal says what it is for, nothing has happened
        const next = existsSync(work.file(JOURNAL)) ? ['resume', 'active.qcow2'] : args;
        if (killed) expect(work.downfold(...next).code, inject).toBe(0);
        expect(images.compare(work, 'active.qcow2'), inject).toBe(IDENTICAL);
        expect(backingIn(work, 'active.qcow2')).toBe('long.qcow2 (qcow2)');
        expect(complaints(work, 'active.qcow2')).toEqual([]);
      }
      expect(flushes).toBeGreaterThan(3);
    },
  );
});
