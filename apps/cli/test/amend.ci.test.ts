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
    const told = (directory: string): unknown => {
      const text = work.must('qemu-img', 'info', '--output=json', `${directory}/x`);
      const info = JSON.parse(text);
      return [info['virtual-size'], info['format-specific']];
    };
    for (const line of lines) {
      const theirs = work.run('qemu-img', 'amend', '-f', 'qcow2', ...line, 'theirs/x');
      const [ours] = downfoldMany(work, [['amend', '-f', 'qcow2', ...line, 'ours/x']]);
      expect([line, ours?.code, ours?.stdout]).toEqual([line, theirs.code, '']);
      expect([line, told('ours')]).toEqual([line, told('theirs')]);
      expect(same(work)).toBe(IDENTICAL);
      expect(complaints(work, 'ours/x')).toEqual([]);
    }
  });
});

function same(work: Bench): string {
  return work.run('qemu-img', 'compare', '-f', 'qcow2', '-F', 'qcow2', 'ours/x', 'theirs/x').stdout;
}
