import { statSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { type Bench, bench, haveQemu } from './support.ts';

/** Some of a disk of 8 TiB that is stored. */
const STORED = ['write -P 1 0 64k', 'write -P 2 3T 1M', 'write -P 3 8796093018112 4k'];

/** A sparse raw file of 8 TiB: to read its holes takes more than an hour. */
function sparse(work: Bench, name: string): void {
  work.must('truncate', '-s', '8T', name);
  work.must('qemu-io', '-f', 'raw', ...STORED.flatMap((one) => ['-c', one]), name);
}

const spaceOf = (work: Bench, name: string): number => statSync(work.file(name)).blocks * 512;

const same = (work: Bench, name: string, format: string): void => {
  work.must('qemu-img', 'compare', '-f', 'raw', '-F', format, 'raw', name);
};

describe.skipIf(!haveQemu)('a sparse raw file costs what is stored of it, to', () => {
  it.each(['qcow2', 'raw'])('convert to %s', (format) => {
    using work = bench();
    sparse(work, 'raw');
    expect(work.downfold('convert', '-f', 'raw', '-O', format, 'raw', 'copy').code).toBe(0);
    same(work, 'copy', format);
    expect(spaceOf(work, 'copy')).toBeLessThan(8 << 20);
  });

  it('measure, as qemu-img does', () => {
    using work = bench();
    sparse(work, 'raw');
    for (const cluster of ['512', '65536', '2M']) {
      const args = ['measure', '-f', 'raw', '-O', 'qcow2', '--output=json', '-o'];
      const line = [...args, `cluster_size=${cluster}`, 'raw'];
      if (cluster === '512') line[line.length - 2] += ',extended_l2=off';
      const theirs = work.run('qemu-img', ...line);
      const ours = work.downfold(...line);
      expect(ours.code).toBe(theirs.code);
      if (theirs.code === 0) expect(JSON.parse(ours.stdout)).toEqual(JSON.parse(theirs.stdout));
    }
  });

  it('compare', () => {
    using work = bench();
    sparse(work, 'raw');
    sparse(work, 'other');
    const compare = ['compare', '-f', 'raw', '-F', 'raw', 'raw', 'other'];
    expect(work.downfold(...compare).code).toBe(0);
    expect(work.downfold('compare', '-s', ...compare.slice(1)).code).toBe(0);
    work.must('qemu-io', '-f', 'raw', '-c', 'write -P 9 6T 512', 'other');
    expect(work.downfold(...compare)).toMatchObject({
      code: 1,
      stdout: work.run('qemu-img', ...compare).stdout,
    });
  });

  it('stream into an overlay', () => {
    using work = bench();
    sparse(work, 'raw');
    work.must('qemu-img', 'create', '-q', '-f', 'qcow2', '-b', 'raw', '-F', 'raw', 'top');
    work.must('qemu-io', '-f', 'qcow2', '-c', 'write -P 1 32k 32k', 'top');
    expect(work.downfold('stream', 'top').code).toBe(0);
    work.must('qemu-img', 'check', '-q', '-f', 'qcow2', 'top');
    expect(work.json<{ 'backing-filename'?: string }>('info', 'top')).not.toHaveProperty(
      'backing-filename',
    );
    same(work, 'top', 'qcow2');
    expect(spaceOf(work, 'top')).toBeLessThan(8 << 20);
  });

  it('rebase to nothing', () => {
    using work = bench();
    sparse(work, 'raw');
    work.must('qemu-img', 'create', '-q', '-f', 'qcow2', '-b', 'raw', '-F', 'raw', 'top');
    expect(work.downfold('rebase', '-b', '', 'top').code).toBe(0);
    same(work, 'top', 'qcow2');
    expect(spaceOf(work, 'top')).toBeLessThan(8 << 20);
  });

  it('commit zeros into', () => {
    using work = bench();
    sparse(work, 'raw');
    work.must('cp', '--sparse=always', 'raw', 'base');
    work.must('qemu-img', 'create', '-q', '-f', 'qcow2', '-b', 'base', '-F', 'raw', 'top');
    work.must('qemu-io', '-f', 'qcow2', '-c', 'write -z 1T 512M', '-c', 'write -z 3T 64k', 'top');
    work.must('qemu-io', '-f', 'raw', '-c', 'write -z 3T 64k', 'raw');
    expect(work.downfold('commit', 'top').code).toBe(0);
    same(work, 'base', 'raw');
    expect(spaceOf(work, 'base')).toBeLessThan(8 << 20);
  });
});

describe.skipIf(!haveQemu)('clusters that lie in holes', () => {
  it('are not read to be copied or compared', () => {
    using work = bench();
    const options = ['-o', 'preallocation=metadata,cluster_size=2M'];
    work.must('qemu-img', 'create', '-q', '-f', 'qcow2', ...options, 'x', '2T');
    work.must('qemu-io', '-f', 'qcow2', '-c', 'write -P 5 1T 64k', 'x');
    expect(work.downfold('convert', '-O', 'raw', 'x', 'raw').code).toBe(0);
    expect(work.downfold('compare', '-F', 'raw', 'x', 'raw').code).toBe(0);
    same(work, 'x', 'qcow2');
    expect(spaceOf(work, 'raw')).toBeLessThan(8 << 20);
  });
});
