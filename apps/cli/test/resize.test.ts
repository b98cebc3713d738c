import { statSync } from 'node:fs';
import { perTier } from '@downfold/compliance';
import { describe, expect, it } from 'vitest';
import { complaints, IDENTICAL } from './qemu-pool.ts';
import { bench, haveQemu, makeChain } from './support.ts';
import { makeVaried } from './varied-images.ts';

const MIB = 1 << 20;

describe('resize', () => {
  it('gives a raw file that ends inside a sector the rest of it', () => {
    using work = bench();
    work.must('sh', '-c', 'head -c 5000 /dev/urandom > disk');
    expect(work.downfold('resize', '-f', 'raw', 'disk', '5120').code).toBe(0);
    expect(statSync(work.file('disk')).size).toBe(5120);
  });

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
    expect(work.downfold('resize', '--shrink', '--', 'active.qcow2', '-512').code).toBe(0);
    expect(work.downfold('resize', 'active.qcow2', '+512').code).toBe(0);
    expect(size()).toBe(6 * MIB);
    for (const bad of ['-6M', '0', 'big', '+', '--', '-1G', '+1000', '6000000'])
      expect([bad, work.downfold('resize', '--shrink', 'active.qcow2', bad).code]).toEqual([
        bad,
        1,
      ]);
    expect(size()).toBe(6 * MIB);
  });

  it.skipIf(!haveQemu).each(['metadata', 'falloc', 'full'])(
    'over a backing file preallocates (%s) what is added, and that alone',
    async (mode) => {
      using work = bench();
      await makeChain(work);
      // what it has there must not come into view
      work.must('qemu-img', 'resize', '-q', 'top.qcow2', '16M');
      work.must('qemu-io', '-f', 'qcow2', '-c', 'write -q 8M 1M', 'top.qcow2');
      const before = work.must('qemu-img', 'map', '--output=json', 'active.qcow2');
      work.must('cp', 'active.qcow2', 'other.qcow2');
      const size = ['-q', `--preallocation=${mode}`];
      expect(work.downfold('resize', ...size, 'active.qcow2', '+1M').code).toBe(0);
      work.must('qemu-img', 'resize', ...size, 'other.qcow2', '+1M');
      work.must('qemu-img', 'compare', '-q', 'active.qcow2', 'other.qcow2');
      work.must('qemu-img', 'check', '-q', 'active.qcow2');
      const rows = work.json<{ start: number; zero: boolean; offset?: number }[]>(
        'map',
        'active.qcow2',
      );
      expect(rows.at(-1)).toMatchObject({ start: 8 * MIB, zero: true, depth: 0 });
      expect(rows.at(-1)?.offset).toBeGreaterThan(0);
      expect(JSON.parse(before)).toMatchObject(rows.slice(0, -1));
    },
  );

  it('of a raw file reserves what is added, when it is to, and only then', () => {
    using work = bench();
    const space = (): number => statSync(work.file('x')).blocks * 512;
    work.must('truncate', '-s', '4M', 'x');
    const grow = (mode: string, size: string): number | null =>
      work.downfold('resize', '-f', 'raw', `--preallocation=${mode}`, 'x', size).code;
    expect(grow('metadata', '+1M')).toBe(1);
    expect(grow('full', '1M')).toBe(1);
    expect([grow('off', '+4M'), space()]).toEqual([0, 0]);
    expect(grow('falloc', '+1M')).toBe(0);
    expect(grow('full', '+1M')).toBe(0);
    expect(statSync(work.file('x')).size).toBe(10 * MIB);
    expect(space()).toBeGreaterThanOrEqual(2 * MIB);
    expect(space()).toBeLessThan(3 * MIB);
  });

  it('of a raw file tells its new size', () => {
    using work = bench();
    work.must('truncate', '-s', '4M', 'x');
    const line = ['resize', '-f', 'raw', '--shrink', 'x', '1000'];
    expect(work.json(...line)).toMatchObject({ 'virtual-size': 1024, before: 4 * MIB });
  });

  it('of a raw file makes the file as long as was said', () => {
    using work = bench();
    work.must('truncate', '-s', '1000001', 'x');
    for (const [size, bytes] of [
      // of the disk, which is whole sectors
      ['+1', 1_000_449],
      ['1000', 1000],
      ['1024', 1024],
    ] as const) {
      const { code } = work.downfold('resize', '-f', 'raw', '--shrink', 'x', size);
      expect([code, statSync(work.file('x')).size]).toEqual([0, bytes]);
    }
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
