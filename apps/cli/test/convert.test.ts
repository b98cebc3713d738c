import { statSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { downfoldMany } from './many.ts';
import { hostBytes } from './qemu-pool.ts';
import { spoil } from './spoil-entry.ts';
import {
  BIN,
  bench,
  diskOf,
  type Ended,
  haveQemu,
  isClean,
  makeChain,
  makeImage,
} from './support.ts';

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

  it('leaves a file that it replaces to those who could read it', async () => {
    using work = bench();
    await makeChain(work);
    work.must('sh', '-ec', 'touch x y; chmod 600 x; chmod 664 y; umask 0');
    for (const name of ['x', 'y', 'z'])
      expect(work.downfold('convert', '-O', 'qcow2', 'active.qcow2', name).code).toBe(0);
    const modes = ['x', 'y', 'z'].map((name) => statSync(work.file(name)).mode & 0o7777);
    expect(modes).toEqual([0o600, 0o664, 0o644]);
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
    [['-O', 'qcow2', '-F', 'qcow2', 'active.qcow2', 'x'], 'cannot be used without backing file'],
    [
      ['-c', '-O', 'qcow2', '-o', 'preallocation=full', 'active.qcow2', 'x'],
      'Compression and preallocation',
    ],
    [['-S', 'much', 'active.qcow2', 'x'], 'Invalid sparse size'],
    [['-O', 'vmdk', 'active.qcow2', 'x'], "Unknown image format 'vmdk'"],
    [['active.qcow2', 'dir'], 'is a directory'],
    [
      ['-O', 'qcow2', '-B', 'other.qcow2', '-F', 'qcow2', 'active.qcow2', 'other.qcow2'],
      'is one of the images that are read',
    ],
    [
      ['-O', 'qcow2', '-B', 'other.qcow2', '-F', 'qcow2', 'active.qcow2', 'lower.qcow2'],
      'is one of the images that are read',
    ],
  ];

  it('refuses what makes no sense, and leaves everything as it was', async () => {
    using work = bench();
    await makeChain(work);
    work.must('sh', '-c', 'ln -s mid.qcow2 link; ln top.qcow2 hard; cp base.qcow2 there');
    const other = { layer: 9, held: [0], mebibytes: 8 };
    await makeImage(work, 'lower.qcow2', { ...other, below: null });
    await makeImage(work, 'other.qcow2', { ...other, below: 'lower.qcow2' });
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

  it.skipIf(!haveQemu)('--salvage copies what can be read, as qemu-img does', () => {
    using work = bench();
    work.must('qemu-img', 'create', '-q', '-f', 'qcow2', 'x', '1M');
    work.must('qemu-io', '-f', 'qcow2', '-c', 'write -P 7 0 192k', 'x');
    work.must('qemu-img', 'convert', '-f', 'qcow2', '-O', 'qcow2', '-c', 'x', 'packed');
    spoil(work, 'packed', ({ bytes, first }) => bytes.fill(0xff, first, first + 16));
    expect(work.downfold('convert', '-O', 'raw', 'packed', 'none').code).toBe(1);
    const { code, stderr } = work.downfold('convert', '--salvage', '-O', 'raw', 'packed', 'ours');
    expect(code).toBe(0);
    expect(stderr).toMatch(/^downfold: byte 0 of the disk: .*; the copy has zeros there\n/);
    expect(stderr.split('\n')).toHaveLength(129);
    work.must('qemu-img', 'convert', '-q', '--salvage', '-O', 'raw', 'packed', 'theirs');
    work.must('cmp', 'ours', 'theirs');
    // an entry that leads nowhere: the disk before and behind it is there
    work.must('cp', 'x', 'entry');
    spoil(work, 'entry', ({ bytes, l2 }) => bytes.writeUInt32BE(0x7fff_0000, l2 + 12));
    const entry = ['--salvage', '-O', 'raw', 'entry'];
    expect(work.downfold('convert', '-q', ...entry, 'ours').code).toBe(0);
    work.must('qemu-img', 'convert', '-q', ...entry, 'theirs');
    work.must('cmp', 'ours', 'theirs');
    expect(work.downfold('convert', '-q', '--salvage', 'packed', 'quiet').stderr).toBe('');
  });
});

describe('a copy', () => {
  it('does not remove what it reads, whatever that is called', () => {
    using work = bench();
    work.must('sh', '-c', 'head -c 1M /dev/urandom > disk.downfold-part');
    const before = work.digest();
    const name = 'disk.downfold-part';
    for (const args of [
      ['convert', '-U', '-f', 'raw', '-O', 'raw', name, 'disk'],
      ['convert', '-f', 'raw', '-O', 'qcow2', name, 'disk'],
      ['dd', '-U', '-f', 'raw', `if=${name}`, 'of=disk'],
    ]) {
      const { code, stderr } = work.downfold(...args);
      expect(code).toBe(1);
      expect(stderr).toContain('is one of the images that are read');
    }
    expect(work.digest()).toEqual(before);
  });

  it('of what lies above a layer goes only into an image that stands on that', () => {
    using work = bench();
    const create = (name: string, ...more: readonly string[]): void =>
      void work.must(process.execPath, BIN, 'create', '-q', ...more, name, '1M');
    create('base');
    for (const name of ['top', 'on-base']) create(name, '-b', 'base', '-F', 'qcow2');
    create('alone');
    const copy = (target: string): Ended =>
      work.downfold(
        ...['convert', '-n', '-B', './base', '-F', 'qcow2', '-O', 'qcow2', 'top', target],
      );
    expect(copy('alone')).toMatchObject({
      code: 1,
      stderr: expect.stringContaining("does not stand on './base'"),
    });
    expect(copy('on-base').code).toBe(0);
  });

  it.skipIf(!haveQemu)(
    'ends inside a cluster of an image that has more, and leaves the rest',
    () => {
      using work = bench();
      const qemu = (...args: readonly string[]): string => work.must('qemu-img', ...args);
      work.must('sh', '-ec', 'yes | head -c 80000 > in.raw; truncate -s 150000 in.raw');
      work.must('sh', '-ec', 'yes below | head -c 1M > base.raw');
      for (const [made, ...how] of [
        ['-b base.raw -F raw'],
        ['-b base.raw -F raw', '-c'],
        ['-b base.raw -F raw', '-S', '0'],
        ['-b base.raw -F raw -o extended_l2=on'],
        ['', '-c'],
      ] as const) {
        for (const target of ['ours', 'theirs']) {
          work.must('rm', '-f', target);
          qemu('create', '-q', '-f', 'qcow2', ...made.split(' ').filter(Boolean), target, '1M');
        }
        const line = ['convert', '-n', ...how, '-f', 'raw', '-O', 'qcow2', 'in.raw'];
        qemu(...line, 'theirs');
        expect(work.downfold(...line, 'ours')).toMatchObject({ code: 0, stderr: '' });
        qemu('compare', 'ours', 'theirs');
        qemu('check', '-q', 'ours');
      }
    },
  );

  it('onto a link that leads round in a circle is refused', () => {
    using work = bench();
    work.must('sh', '-c', 'ln -s b a; ln -s a b; head -c 1M /dev/zero > x');
    const { code, stderr } = work.downfold('convert', '-f', 'raw', '-O', 'raw', 'x', 'a');
    expect(code).toBe(1);
    expect(stderr).toContain('too many levels of symbolic links');
  });
});
