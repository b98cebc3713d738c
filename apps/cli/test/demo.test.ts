import { describe, expect, it } from 'vitest';
import { BIN, bench, haveQemu } from './support.ts';

const NAMES = ['active.qcow2', 'base.qcow2', 'mid.qcow2', 'top.qcow2'];

describe('demo', () => {
  it('leaves nothing behind', () => {
    using work = bench();
    const { code, stdout } = work.run('env', `TMPDIR=${work.path}`, process.execPath, BIN, 'demo');
    expect(code).toBe(0);
    expect(stdout).toContain('Every disk reads as it must.');
    expect(work.digest()).toEqual({});
  });

  it('shows a chain, a plan, a commit, and what changed; with --dir keeps its images', () => {
    using work = bench();
    const { code, stdout, stderr } = work.downfold('demo', '--dir', 'kept');
    expect([code, stderr]).toEqual([0, '']);
    for (const part of [
      '1. A chain',
      '2. What',
      '3. Doing it',
      '4. What changed',
      'verified: what was written reads as it must',
    ])
      expect(stdout).toContain(part);
    expect(stdout).not.toContain('DIFFERENT');
    expect(stdout).toContain('Every disk reads as it must.');
    expect(work.must('ls', 'kept').trim().split('\n')).toEqual(NAMES);
    if (haveQemu)
      for (const name of NAMES) work.must('qemu-img', 'check', '-q', '-f', 'qcow2', `kept/${name}`);
    const again = work.downfold('demo', '--dir', 'kept');
    expect([again.code, again.stderr]).toEqual([1, "downfold: 'kept' is not empty\n"]);
  });
});
