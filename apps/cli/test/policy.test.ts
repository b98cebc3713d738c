import { describe, expect, it } from 'vitest';
import { type Bench, bench, makeChain, makeImage } from './support.ts';

/** A pool directory with an overlay whose backing file is `name`, in it or not. */
async function overlayOn(name: string, format = 'qcow2'): Promise<Bench> {
  const work = bench();
  work.must('mkdir', 'pool', 'other');
  const backing = ['-u', '-b', name, '-F', format];
  expect(work.downfold('create', '-q', ...backing, 'pool/top', '1M').code).toBe(0);
  await makeImage(work, 'other/base', { layer: 1, held: [0], mebibytes: 1, below: null });
  await makeImage(work, 'pool/base', { layer: 1, held: [0], mebibytes: 1, below: null });
  return work;
}

describe('what an image may make Downfold open, on real files', () => {
  it.each([
    ['base', 'in its own directory'],
    ['file:base', 'with the prefix of a plain file'],
    ['inside', 'by a link to its own directory'],
  ])('%s: %s', async (name) => {
    using work = await overlayOn(name);
    work.must('ln', '-s', 'base', 'pool/inside');
    expect(work.downfold('map', 'pool/top').code).toBe(0);
  });

  it.each([
    ['../other/base', 'outside the allowed directories'],
    ['outside', 'outside the allowed directories'],
    ['door/base', 'outside the allowed directories'],
    ['/etc/hostname', 'outside the allowed directories'],
    ['gone', 'is not there'],
    ['loop', 'is not there'],
    ['fifo', 'neither a regular file nor a block device'],
    ['directory', 'neither a regular file nor a block device'],
    ['socket:x', 'names a protocol'],
    ['json:{"driver":"null-co"}', 'names a protocol'],
    ['hard', 'backs itself'],
    ['top', 'backs itself'],
  ])('not %s: it %s; nothing waits, nothing changes', async (name, why) => {
    using work = await overlayOn(name);
    work.must('ln', '-s', '../other/base', 'pool/outside');
    work.must('ln', '-s', '../other', 'pool/door');
    work.must('ln', '-s', 'loop', 'pool/loop');
    work.must('ln', 'pool/top', 'pool/hard');
    work.must('mkfifo', 'pool/fifo');
    work.must('mkdir', 'pool/directory');
    for (const command of ['map', 'commit']) {
      const { code, stdout, stderr } = work.downfold(command, 'pool/top');
      expect([code, stdout]).toEqual([1, '']);
      expect(stderr).toContain(why);
      expect(stderr).toMatch(/^downfold: .*pool\/.*\n$/);
    }
    expect(work.must('ls', 'pool')).not.toContain('.downfold');
  });

  it('a directory that the user allows', async () => {
    using work = await overlayOn('../other/base');
    expect(work.downfold('map', 'pool/top').stderr).toContain('--allow DIR');
    expect(work.downfold('map', '--allow', 'other', 'pool/top').code).toBe(0);
    expect(work.downfold('map', '--allow', 'pool', 'pool/top').code).toBe(1);
  });

  it('no backing file without a format', async () => {
    using work = bench();
    await makeImage(work, 'base', { layer: 1, held: [0], mebibytes: 1, below: null });
    await makeImage(work, 'top', { layer: 1, held: [], mebibytes: 1, below: 'base' });
    // the type of the header extension that holds the format becomes one that nobody knows
    work.must('perl', '-pi', '-e', 's/\\xe2\\x79\\x2a\\xca/\\x01\\x02\\x03\\x04/', 'top');
    const { code, stderr } = work.downfold('map', 'top');
    expect(code).toBe(1);
    expect(stderr).toContain("qemu-img rebase -u -F FORMAT -b 'base'");
  });

  it('no image that is marked invalid, unless the user insists', async () => {
    using work = bench();
    await makeChain(work);
    const commit = ['commit', '-q', '-b', 'base.qcow2', '--top', 'top.qcow2', 'active.qcow2'];
    expect(work.downfold(...commit).code).toBe(0);
    const { code, stderr } = work.downfold('map', 'mid.qcow2');
    expect(code).toBe(1);
    expect(stderr).toMatch(/mid\.qcow2: is marked invalid since .*'--force-invalid'/);
    expect(work.downfold('map', '--force-invalid', 'mid.qcow2').code).toBe(0);
  });
});
