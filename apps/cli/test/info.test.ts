import { readFileSync, writeFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { type Bench, bench, haveQemu, makeChain } from './support.ts';

/** Downfold says of `x.qcow2` what qemu-img says. */
function sameInfo(work: Bench): void {
  const theirs = work.must('qemu-img', 'info', '-f', 'qcow2', '--output=json', 'x.qcow2');
  expect(work.json('info', 'x.qcow2')).toEqual(JSON.parse(theirs));
  expect(work.downfold('info', 'x.qcow2').stdout).toBe(
    work.must('qemu-img', 'info', '-f', 'qcow2', 'x.qcow2'),
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
      sameInfo(work);
    });

    it('an image with internal snapshots and persistent bitmaps', () => {
      using work = bench();
      work.must('qemu-img', 'create', '-q', '-f', 'qcow2', 'x.qcow2', '5M');
      for (const name of ['one', 'a second one of a long name'])
        work.must('qemu-img', 'snapshot', '-c', name, 'x.qcow2');
      work.must('qemu-img', 'bitmap', '--add', '-f', 'qcow2', 'x.qcow2', 'plain');
      const more = ['--disable', '-g', '4096', '-f', 'qcow2'];
      work.must('qemu-img', 'bitmap', '--add', ...more, 'x.qcow2', 'of small parts');
      sameInfo(work);
      // by Downfold, which keeps them true
      work.must(
        'qemu-img',
        'create',
        '-q',
        '-f',
        'qcow2',
        '-b',
        'x.qcow2',
        '-F',
        'qcow2',
        'top.qcow2',
      );
      work.must('qemu-io', '-f', 'qcow2', '-c', 'write 1M 1M', 'top.qcow2');
      expect(work.downfold('commit', '-q', 'top.qcow2').code).toBe(0);
      sameInfo(work);
      expect(work.downfold('info', 'x.qcow2').stdout).not.toContain('in-use');
    });

    it('an image with a snapshot of a machine: its state, its clock, and no count of instructions', () => {
      using work = bench();
      work.must('qemu-img', 'create', '-q', '-f', 'qcow2', 'x.qcow2', '5M');
      work.must('qemu-img', 'snapshot', '-c', 'one', 'x.qcow2');
      const bytes = readFileSync(work.file('x.qcow2'));
      const at = Number(bytes.readBigUInt64BE(64));
      // 10:03:04.005; 3 GiB; none
      bytes.writeBigUInt64BE(36_184_005_000_000n, at + 24);
      bytes.writeBigUInt64BE(3n << 30n, at + 40);
      bytes.writeBigUInt64BE(2n ** 64n - 1n, at + 56);
      writeFileSync(work.file('x.qcow2'), bytes);
      sameInfo(work);
      expect(work.downfold('info', 'x.qcow2').stdout).toMatch(/ 3 GiB .* 10:03:04\.005 +\n/);
    });

    it('an old image, whose snapshot has no extra data', () => {
      using work = bench();
      work.must('qemu-img', 'create', '-q', '-f', 'qcow2', '-o', 'compat=0.10', 'x.qcow2', '5M');
      work.must('qemu-img', 'snapshot', '-c', 'one', 'x.qcow2');
      const bytes = readFileSync(work.file('x.qcow2'));
      const at = Number(bytes.readBigUInt64BE(64));
      const head = 40;
      const extra = bytes.readUInt32BE(at + 36);
      bytes.copy(bytes, at + head, at + head + extra, at + head + extra + '1one'.length);
      bytes.writeUInt32BE(5 << 20, at + 32);
      bytes.writeUInt32BE(0, at + 36);
      writeFileSync(work.file('x.qcow2'), bytes);
      sameInfo(work);
      expect(work.downfold('info', 'x.qcow2').stdout).toMatch(/\n1 +one +5 MiB 20/);
    });

    it('an image that was not closed', () => {
      using work = bench();
      work.must(
        'qemu-img',
        'create',
        '-q',
        '-f',
        'qcow2',
        '-o',
        'lazy_refcounts=on',
        'x.qcow2',
        '5M',
      );
      const kill = ['-c', 'write 0 64k', '-c', 'flush', '-c', 'sigraise 9'];
      work.run('qemu-io', '-f', 'qcow2', ...kill, 'x.qcow2');
      sameInfo(work);
      expect(work.downfold('info', 'x.qcow2').stdout).toContain('\ncleanly shut down: no\n');
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
        expect(work.json('info', ...args)).toEqual(JSON.parse(theirs));
        expect(work.downfold('info', ...args).stdout).toBe(work.must('qemu-img', 'info', ...args));
      }
    });
  });
});
