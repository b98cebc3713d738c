import { describe, expect, it } from 'vitest';
import { downfoldMany } from './many.ts';
import { complaints, IDENTICAL } from './qemu-pool.ts';
import { type Bench, bench, haveQemu } from './support.ts';

const lines: readonly (readonly string[])[] = [
  ['-o', 'compat=0.10'],
  ['-o', 'compat=v3,lazy_refcounts=on'],
  ['-o', 'lazy_refcounts=off'],
  ['-o', 'size=6M'],
  ['-o', 'refcount_bits=16'],
  ['-o', 'compat=v3,refcount_bits=1'],
  ['-o', 'refcount_bits=64'],
  ['-o', 'compat=0.10,refcount_bits=16'],
  ['-o', 'refcount_bits=8'],
  ['-o', 'compat=v3,refcount_bits=3'],
  // refused by both
  ['-o', 'cluster_size=64k'],
  ['-o', 'extended_l2=on'],
  ['-o', 'preallocation=full'],
  ['-o', 'compat=0.9'],
  ['-o', 'compat=0.10,lazy_refcounts=on'],
  // nothing of it is done
  ['-o', 'compat=0.10,size=much'],
  [],
];

describe.skipIf(!haveQemu)('amend', () => {
  it('changes what qemu-img changes, and refuses what it refuses', () => {
    using work = bench();
    work.must('sh', '-c', 'mkdir ours theirs');
    const io = ['write -P 1 0 1M', 'write -z 1M 1M', 'write -z -u 3M 100k'];
    for (const directory of ['ours', 'theirs']) {
      work.must('qemu-img', 'create', '-q', '-f', 'qcow2', `${directory}/x`, '5M');
      work.must('qemu-io', '-f', 'qcow2', ...io.flatMap((one) => ['-c', one]), `${directory}/x`);
    }
    for (const line of lines) {
      const theirs = work.run('qemu-img', 'amend', '-f', 'qcow2', ...line, 'theirs/x');
      const [ours] = downfoldMany(work, [['amend', '-f', 'qcow2', ...line, 'ours/x']]);
      expect([line, ours?.code, ours?.stdout]).toEqual([line, theirs.code, '']);
      expect([line, told(work, 'ours/x')]).toEqual([line, told(work, 'theirs/x')]);
      expect(same(work)).toBe(IDENTICAL);
      expect(complaints(work, 'ours/x')).toEqual([]);
    }
  });

  it('gives version 2 to an image with internal snapshots that it can have', () => {
    using work = bench();
    for (const file of ['ours', 'theirs']) {
      work.must('qemu-img', 'create', '-q', '-f', 'qcow2', file, '5M');
      work.must('qemu-io', '-f', 'qcow2', '-c', 'write -P 1 0 1M', file);
      work.must('qemu-img', 'snapshot', '-c', 's', file);
      work.must('qemu-io', '-f', 'qcow2', '-c', 'write -P 2 0 100k', '-c', 'write -z 2M 1M', file);
    }
    const line = ['amend', '-f', 'qcow2', '-o', 'compat=0.10'];
    work.must('qemu-img', ...line, 'theirs');
    expect(work.downfold(...line, 'ours')).toMatchObject({ code: 0, stderr: '' });
    expect(told(work, 'ours')).toEqual(told(work, 'theirs'));
    for (const ends of [[], ['-l', 's']]) {
      for (const file of ['ours', 'theirs'])
        work.must('qemu-img', 'convert', ...ends, '-O', 'raw', file, `${file}.raw`);
      work.must('cmp', 'ours.raw', 'theirs.raw');
    }
    expect(complaints(work, 'ours')).toEqual([]);
  });

  it('lets a data file be no disk of its own any more', () => {
    using work = bench();
    for (const file of ['ours', 'theirs'])
      work.must(
        ...['qemu-img', 'create', '-q', '-f', 'qcow2'],
        ...['-o', `data_file=${file}.raw,data_file_raw=on`, file, '1M'],
      );
    for (const value of ['on', 'off', 'off', 'on']) {
      const line = ['amend', '-f', 'qcow2', '-o', `data_file_raw=${value}`];
      const theirs = work.run('qemu-img', ...line, 'theirs');
      const ours = work.downfold(...line, '--allow-data-file', 'ours');
      expect([value, ours.code]).toEqual([value, theirs.code]);
      const raw = 'data-file-raw';
      expect(told(work, 'ours').specific[raw]).toBe(told(work, 'theirs').specific[raw]);
      expect(complaints(work, 'ours')).toEqual([]);
    }
  });
});

/** What QEMU knows of an image that `amend` may change. */
function told(work: Bench, file: string): { size: unknown; specific: Record<string, unknown> } {
  const info = JSON.parse(work.must('qemu-img', 'info', '--output=json', file));
  return { size: info['virtual-size'], specific: info['format-specific'].data };
}

function same(work: Bench): string {
  return work.run('qemu-img', 'compare', '-f', 'qcow2', '-F', 'qcow2', 'ours/x', 'theirs/x').stdout;
}
