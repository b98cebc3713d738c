import { describe, expect, it } from 'vitest';
import { bench, haveQemu, makeChain } from './support.ts';

/** Not in the contract of an image (yet): whether it is marked dirty, and its internal snapshots. */
const NOT_THERE = ['dirty-flag', 'snapshots', 'bitmaps'];

/** What qemu-img says, without what Downfold does not know. */
function known(info: unknown): unknown {
  return JSON.parse(
    JSON.stringify(info, (key, value: unknown) => (NOT_THERE.includes(key) ? undefined : value)),
  );
}

describe('info', () => {
  it('shows one image, without opening what lies below', async () => {
    using work = bench();
    await makeChain(work);
    work.must('rm', 'top.qcow2');
    const { code, stdout } = work.downfold('info', 'active.qcow2');
    expect(code).toBe(0);
    expect(stdout).toContain(
      'image: active.qcow2\nfile format: qcow2\nvirtual size: 8 MiB (8388608 bytes)\n',
    );
    expect(stdout).toContain('backing file: top.qcow2\nbacking file format: qcow2\n');
    expect(work.json('info', 'active.qcow2')).toMatchObject({
      filename: 'active.qcow2',
      format: 'qcow2',
      'virtual-size': 8 << 20,
      'cluster-size': 65_536,
      'backing-filename': 'top.qcow2',
      'full-backing-filename': 'top.qcow2',
      'backing-filename-format': 'qcow2',
    });
  });

  it('shows a chain from top to base', async () => {
    using work = bench();
    await makeChain(work);
    const chain = work.json<{ filename: string }[]>('info', '--backing-chain', 'active.qcow2');
    expect(chain.map(({ filename }) => filename)).toEqual([
      'active.qcow2',
      'top.qcow2',
      'mid.qcow2',
      'base.qcow2',
    ]);
    const { stdout } = work.downfold('info', '--backing-chain', 'active.qcow2');
    expect(stdout.split('\n\n')).toHaveLength(4);
  });

  it('shows the mark of an image that lost its meaning', async () => {
    using work = bench();
    await makeChain(work);
    expect(
      work.downfold('commit', '-q', '-b', 'base.qcow2', '--top', 'top.qcow2', 'active.qcow2').code,
    ).toBe(0);
    expect(work.json('info', 'mid.qcow2')).toMatchObject({ 'x-mark': { state: 'invalid' } });
    expect(work.downfold('info', 'mid.qcow2').stdout).toMatch(
      /^downfold mark: invalid since 20.* by job /m,
    );
  });

  describe.skipIf(!haveQemu)('says what qemu-img says of', () => {
    const images: readonly (readonly [name: string, ...options: string[]])[] = [
      ['plain'],
      ['v2', '-o', 'compat=0.10,cluster_size=4k'],
      ['ext', '-o', 'extended_l2=on,compression_type=zstd,refcount_bits=64'],
      ['lazy', '-o', 'lazy_refcounts=on,cluster_size=2M'],
    ];

    it.each(images)('%s', (_, ...options) => {
      using work = bench();
      work.must('qemu-img', 'create', '-q', '-f', 'qcow2', ...options, 'x.qcow2', '5M');
      work.must('qemu-io', '-f', 'qcow2', '-c', 'write 1M 1M', 'x.qcow2');
      const theirs = work.must('qemu-img', 'info', '-f', 'qcow2', '--output=json', 'x.qcow2');
      expect(work.json('info', 'x.qcow2')).toEqual(known(JSON.parse(theirs)));
      expect(work.downfold('info', 'x.qcow2').stdout).toBe(
        work.must('qemu-img', 'info', '-f', 'qcow2', 'x.qcow2'),
      );
    });

    it('a raw image, and a chain on it, named from another directory', () => {
      using work = bench();
      work.must('mkdir', 'd');
      work.must('qemu-img', 'create', '-q', '-f', 'raw', 'd/base.img', '3M');
      work.must(
        'qemu-img',
        'create',
        '-q',
        '-f',
        'qcow2',
        '-b',
        'base.img',
        '-F',
        'raw',
        'd/mid',
        '4M',
      );
      work.must(
        'qemu-img',
        'create',
        '-q',
        '-f',
        'qcow2',
        '-b',
        work.file('d/mid'),
        '-F',
        'qcow2',
        'd/top',
      );
      for (const args of [
        ['-f', 'raw', 'd/base.img'],
        ['-f', 'qcow2', '--backing-chain', 'd/top'],
      ]) {
        const theirs = work.must('qemu-img', 'info', '--output=json', ...args);
        expect(work.json('info', ...args)).toEqual(known(JSON.parse(theirs)));
        expect(work.downfold('info', ...args).stdout).toBe(work.must('qemu-img', 'info', ...args));
      }
    });
  });
});
