import { statSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { mounted, mountProblem } from './mounted.ts';

const MIB = 1 << 20;

describe('resize --preallocation on a file system that is too small', () => {
  it.skipIf(mountProblem !== null).each([
    ['raw', 'falloc', '1M', 1600],
    ['raw', 'full', '1M', 3000],
    ['qcow2', 'falloc', '1M', 1600],
    ['qcow2', 'full', '1M', 3000],
    // there is no L2 table yet, and more than one is needed
    ['qcow2', 'full', '512', 100],
    ['qcow2', 'full', '512', 1000],
    ['qcow2', 'full', '512', 5000],
  ])(
    'of a %s image that finds no room (%s, %s, %i KiB left) leaves the disk as it was',
    (format, mode, size, left) => {
      using work = mounted(8);
      expect(work.downfold('create', '-q', '-f', format, 'x', size).code).toBe(0);
      const before = work.json('info', '-f', format, 'x')['virtual-size'];
      const fill = `head -c $((($(df --output=avail -k . | tail -1) - ${left}) * 1024)) /dev/zero >fill`;
      work.must('sh', '-ec', fill);
      const line = ['resize', '-f', format, `--preallocation=${mode}`, 'x', '1G'];
      for (let tried = 0; tried < 2; tried++) {
        const { code, stderr } = work.downfold(...line);
        expect([code, stderr]).toEqual([1, expect.stringContaining('no space left')]);
        expect(work.json('info', '-f', format, 'x')['virtual-size']).toBe(before);
        if (format === 'qcow2') expect(work.downfold('check', 'x').stdout).toMatch(/^No errors/);
      }
      // what it took is there again
      const free = Number(work.must('df', '--output=avail', '-k', '.').split('\n')[1]);
      expect(free).toBeGreaterThan(left - 300);
      work.must('mount', '-o', 'remount,size=2G', work.path);
      expect(work.downfold(...line.slice(0, -1), '+20M').code).toBe(0);
      expect(statSync(work.file('x')).blocks * 512).toBeGreaterThan(20 * MIB);
    },
  );
});
