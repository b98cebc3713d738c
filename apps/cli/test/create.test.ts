import { statSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { bench, haveQemu, makeImage } from './support.ts';

describe('create', () => {
  it('makes an image of whole sectors, and says so as qemu-img does', () => {
    using work = bench();
    const { code, stdout } = work.downfold('create', 'a.qcow2', '1000');
    expect([code, stdout]).toEqual([
      0,
      "Formatting 'a.qcow2', fmt=qcow2 cluster_size=65536 extended_l2=off compression_type=zlib size=1000 lazy_refcounts=off refcount_bits=16\n",
    ]);
    expect(work.json('info', 'a.qcow2')).toMatchObject({ 'virtual-size': 1024 });
    expect(work.downfold('check', '-q', 'a.qcow2').code).toBe(0);
    expect(work.json('create', '-f', 'raw', 'b.img', '1.5k')).toEqual({
      filename: 'b.img',
      format: 'raw',
      'virtual-size': 1536,
    });
    expect(work.downfold('create', '-q', 'c.qcow2', '1M').stdout).toBe('');
  });

  it('takes the size of the backing file, which must be there and be what -F says', async () => {
    using work = bench();
    await makeImage(work, 'base', { layer: 1, held: [], mebibytes: 3, below: null });
    expect(work.downfold('create', '-b', 'base', '-F', 'qcow2', 'a').code).toBe(0);
    expect(work.json('info', 'a')).toMatchObject({
      'virtual-size': 3 << 20,
      'backing-filename': 'base',
    });
    work.must('truncate', '-s', '1M', 'noise');
    for (const args of [
      ['-b', 'gone', '-F', 'qcow2', 'x', '1M'],
      ['-b', 'noise', '-F', 'qcow2', 'x', '1M'],
      ['-b', 'base', 'x', '1M'],
    ]) {
      const { code, stderr } = work.downfold('create', ...args);
      expect([code, stderr.split('\n').length]).toEqual([1, 2]);
      expect(work.run('ls', 'x').code).not.toBe(0);
    }
    expect(work.downfold('create', '-u', '-b', 'gone', '-F', 'qcow2', 'x', '1M').code).toBe(0);
  });

  it.each(['off', 'falloc', 'full'])('reserves the space of a raw file: %s', (mode) => {
    using work = bench();
    const line = ['create', '-f', 'raw', '-o', `preallocation=${mode}`, 'x', '5M'];
    const { stdout } = work.downfold(...line);
    const { size, blocks } = statSync(work.file('x'));
    expect(size).toBe(5 << 20);
    if (mode === 'off') expect(blocks * 512).toBe(4096);
    else expect(blocks * 512).toBeGreaterThanOrEqual(5 << 20);
    work.must('rm', 'x');
    if (haveQemu) expect(stdout).toBe(work.must('qemu-img', ...line));
  });

  it('never writes over a file', () => {
    using work = bench();
    work.must('truncate', '-s', '1M', 'a');
    const before = work.digest();
    const { code, stderr } = work.downfold('create', 'a', '1M');
    expect(code).toBe(1);
    expect(stderr).toMatch(/^downfold: Could not create 'a': .*exists already.*\n$/);
    expect(work.digest()).toEqual(before);
  });

  it.each([
    [['-o', 'cluster_size=3k'], 'powers of two'],
    [['-o', 'refcount_bits=3'], 'refcounts of 3 bits'],
    [['-o', 'compat=0.10,extended_l2=on'], 'version 2'],
    [['-o', 'extended_l2=on,cluster_size=4k'], '16 KiB'],
    [['-o', 'compat=0.9'], 'compat can be 0.10 or v2 or 1.1 or v3'],
    [['-o', 'preallocation=some'], 'preallocation can be off or metadata'],
    [['-o', 'size=1M'], 'must be specified only once'],
    [['-o', 'shape=round'], "Invalid -o option 'shape' for format qcow2"],
    [['-f', 'raw', '-o', 'cluster_size=4k'], "Invalid -o option 'cluster_size' for format raw"],
    [['-f', 'raw', '-o', 'preallocation=metadata'], 'preallocation can be off or falloc or full'],
    [['-f', 'vmdk'], "Unknown image format 'vmdk'; known are qcow2, raw"],
    [['-F', 'qcow2'], 'Backing format cannot be used without backing file'],
    [['-o', 'backing_fmt=qcow2'], 'Backing format cannot be used without backing file'],
    [['-f', 'raw', '-F', 'qcow2'], 'Backing format cannot be used without backing file'],
    [['-u', '-b', 'gone', '-F', 'qcwo2'], "Unknown image format 'qcwo2'"],
    [['-f', 'raw', '-b', 'x', '-F', 'raw', '-u'], 'raw images do not have a backing file'],
  ])('refuses %j, and leaves nothing behind', (args, why) => {
    using work = bench();
    const { code, stdout, stderr } = work.downfold('create', ...args, 'x', '1M');
    expect([code, stdout]).toEqual([1, '']);
    expect(stderr).toContain(why);
    expect(stderr).toMatch(/^downfold: .*\n$/);
    expect(work.digest()).toEqual({});
  });

  it.each([[['a']], [['a', '1x']], [['a', '']], [['a', '9P']]])(
    'refuses the size of %j',
    (args) => {
      using work = bench();
      const { code, stderr } = work.downfold('create', ...args);
      expect(code).toBe(1);
      expect(stderr).toMatch(/^downfold: .*size.*\n$/);
      expect(work.digest()).toEqual({});
    },
  );

  it.each(['help', '?', 'cluster_size=4k,help'])('lists what -o can say, asked by %s', (asked) => {
    using work = bench();
    const { code, stdout } = work.downfold('create', '-o', asked, 'x');
    expect(code).toBe(0);
    expect(stdout).toContain('compression_type=zlib|zstd');
    expect(work.digest()).toEqual({});
  });

  it('takes two commas in -o for one that is meant', () => {
    using work = bench();
    work.must('truncate', '-s', '1M', 'a,help');
    work.downfold('create', '-o', 'backing_file=a,,help,backing_fmt=raw', 'x');
    expect(work.json('info', 'x')).toMatchObject({ 'backing-filename': 'a,help' });
  });

  it
    .skipIf(!haveQemu)
    .each([
      [[]],
      [['-o', 'cluster_size=512']],
      [['-o', 'cluster_size=2M,refcount_bits=1']],
      [['-o', 'refcount_bits=64']],
      [['-o', 'compat=0.10']],
      [['-o', 'compat=v2,cluster_size=4k']],
      [['-o', 'compat=1.1,lazy_refcounts=on']],
      [['-o', 'extended_l2=on']],
      [['-o', 'compression_type=zstd', '-o', 'size=3M']],
      [['-b', 'base', '-F', 'qcow2']],
      [['-o', 'backing_file=base,backing_fmt=qcow2']],
      [['-u', '-b', 'gone', '-F', 'raw']],
      [['-u', '-b', 'gone', '-F', 'vmdk']],
    ])('makes with %j what qemu-img makes', async (args) => {
    using work = bench();
    await makeImage(work, 'base', { layer: 1, held: [], mebibytes: 5, below: null });
    const size = args.includes('base') || args.includes('size=3M') ? [] : ['7M'];
    const theirs = work.must('qemu-img', 'create', '-f', 'qcow2', ...args, 'theirs', ...size);
    const ours = work.downfold('create', ...args, 'ours', ...size);
    expect([ours.code, ours.stdout]).toEqual([0, theirs.replace('theirs', 'ours')]);
    const info = (name: string): unknown => {
      const text = work.must('qemu-img', 'info', '-f', 'qcow2', '--output=json', name);
      return { ...JSON.parse(text), filename: '', 'actual-size': 0 };
    };
    expect(info('ours')).toEqual(info('theirs'));
    const judged = args.includes('gone')
      ? work.downfold('check', 'ours')
      : work.run('qemu-img', 'check', 'ours');
    expect(judged.stdout).toContain('No errors were found');
  });
});
