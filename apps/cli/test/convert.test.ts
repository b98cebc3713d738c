import { describe, expect, it } from 'vitest';
import { downfoldMany } from './many.ts';
import { hostBytes } from './qemu-pool.ts';
import { bench, diskOf, isClean, makeChain } from './support.ts';

describe('convert', () => {
  it('makes one image of a chain, whole in itself', async () => {
    using work = bench();
    await makeChain(work);
    expect(work.downfold('convert', '-O', 'qcow2', 'active.qcow2', 'alone.qcow2')).toEqual({
      code: 0,
      stdout: '',
      stderr: '',
    });
    expect(await diskOf(work, 'alone.qcow2')).toBe(await diskOf(work, 'active.qcow2'));
    expect(await isClean(work, 'alone.qcow2')).toBe(true);
    expect(work.json('info', 'alone.qcow2')).not.toHaveProperty('backing-filename');
    expect(work.json('convert', '-O', 'raw', 'active.qcow2', 'x.img')).toEqual({
      filename: 'x.img',
      format: 'raw',
      'virtual-size': 8 << 20,
      bytesCopied: 6 << 20,
      bytesZeroed: 0,
    });
    expect(hostBytes(work, 'x.img')).toBe(6 << 20);
  });

  it('keeps what lies below the layer that -B names', async () => {
    using work = bench();
    await makeChain(work);
    for (const [base, bytes] of [
      ['top.qcow2', 1],
      ['mid.qcow2', 3],
      ['base.qcow2', 5],
    ] as const) {
      const line = ['convert', '-O', 'qcow2', '-B', base, '-F', 'qcow2', 'active.qcow2', 'x'];
      expect(work.json(...line)).toMatchObject({ bytesCopied: bytes << 20 });
      expect(await diskOf(work, 'x')).toBe(await diskOf(work, 'active.qcow2'));
      expect(work.json('info', 'x')).toMatchObject({ 'backing-filename': base });
    }
  });

  const refused: readonly (readonly [args: readonly string[], why: string])[] = [
    [['active.qcow2', 'active.qcow2'], 'is one of the images that are read'],
    [['active.qcow2', 'base.qcow2'], 'is one of the images that are read'],
    [['active.qcow2', 'link'], 'is one of the images that are read'],
    [['active.qcow2', 'hard'], 'is one of the images that are read'],
    [['active.qcow2'], 'Must specify image file name'],
    [['-B', 'base.qcow2', 'active.qcow2', 'x'], 'without backing format'],
    [['-B', 'active.qcow2', '-F', 'qcow2', 'active.qcow2', 'x'], 'nothing to copy'],
    [['-n', 'active.qcow2', 'x'], 'no such file'],
    [['-n', '-O', 'qcow2', '-o', 'compat=v2', 'active.qcow2', 'there'], 'give one of them'],
    [['--target-is-zero', 'active.qcow2', 'x'], 'requires use of -n'],
    [['-l', 'gone', 'active.qcow2', 'x'], "no internal snapshot 'gone'"],
    [['-S', 'much', 'active.qcow2', 'x'], 'Invalid sparse size'],
    [['-O', 'vmdk', 'active.qcow2', 'x'], "Unknown image format 'vmdk'"],
    [['active.qcow2', 'dir'], 'is a directory'],
  ];

  it('refuses what makes no sense, and leaves everything as it was', async () => {
    using work = bench();
    await makeChain(work);
    work.must('sh', '-c', 'ln -s mid.qcow2 link; ln top.qcow2 hard; cp base.qcow2 there');
    const before = work.digest();
    work.must('mkdir', 'dir');
    const lines = refused.map(([args]) => ['convert', ...args]);
    for (const [index, { code, stderr }] of downfoldMany(work, lines).entries()) {
      expect([lines[index], code]).toEqual([lines[index], 1]);
      expect(stderr).toContain(refused[index]?.[1]);
    }
    work.must('rmdir', 'dir');
    expect(work.digest()).toEqual(before);
  });
});
