import { perTier } from '@downfold/compliance';
import { describe, expect, it } from 'vitest';
import { complaints, IDENTICAL } from './qemu-pool.ts';
import { bench, haveQemu, makeChain } from './support.ts';
import { makeVaried } from './varied-images.ts';

const MIB = 1 << 20;

describe('resize', () => {
  it('makes the disk larger and smaller, and asks before it loses data', async () => {
    using work = bench();
    await makeChain(work);
    const size = (): unknown => work.json('info', 'active.qcow2')['virtual-size'];
    expect(work.downfold('resize', 'active.qcow2', '+4M')).toEqual({
      code: 0,
      stdout: 'Image resized.\n',
      stderr: '',
    });
    expect(size()).toBe(12 * MIB);
    const { code, stderr } = work.downfold('resize', 'active.qcow2', '-6M');
    expect([code, stderr]).toEqual([1, expect.stringMatching(/^downfold: Use the --shrink.*\n$/)]);
    expect(size()).toBe(12 * MIB);
    expect(work.downfold('resize', '-q', '--shrink', 'active.qcow2', '-6M').stdout).toBe('');
    expect(size()).toBe(6 * MIB);
    for (const bad of ['-6M', '0', 'big', '+', '--', '-1G'])
      expect([bad, work.downfold('resize', '--shrink', 'active.qcow2', bad).code]).toEqual([
        bad,
        1,
      ]);
    expect(size()).toBe(6 * MIB);
  });

  const seeds = Array.from({ length: perTier({ quick: 1, ci: 8, long: 300 }) }, (_, seed) => seed);

  it.skipIf(!haveQemu).each(seeds)('of random image %i cuts the disk, and adds zeros', (seed) => {
    using work = bench();
    const { name, format } = makeVaried(work, seed, { damaged: false });
    // a file is what the guest sees, and truncate(1) the judge: QEMU itself shows old data after a cut inside a cluster
    work.must('qemu-img', 'convert', '-f', format, '-O', 'raw', name, 'model');
    for (const change of ['+300k', '-700416', '5M', '1M', '1536', '3M']) {
      const { code, stderr } = work.downfold('resize', '-f', format, '--shrink', name, change);
      if (code !== 0) {
        expect(stderr).toMatch(/version 2 image with internal snapshots|must be positive/);
        continue;
      }
      work.must('truncate', '-s', change, 'model');
      const files = ['-f', format, '-F', 'raw', name, 'model'];
      const compared = work.run('qemu-img', 'compare', ...files);
      expect([change, compared.stdout + compared.stderr]).toEqual([change, IDENTICAL]);
      if (format === 'qcow2') expect(complaints(work, name)).toEqual([]);
    }
  });
});
