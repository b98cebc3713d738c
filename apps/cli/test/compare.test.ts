import { describe, expect, it } from 'vitest';
import { bench, haveQemu, makeImage } from './support.ts';

describe('compare', () => {
  it('says with 0 that two disks are the same, however they are stored', async () => {
    using work = bench();
    await makeImage(work, 'a', { layer: 1, held: [0, 2], mebibytes: 4, below: null });
    await makeImage(work, 'b', { layer: 1, held: [0], mebibytes: 4, below: null });
    await makeImage(work, 'c', { layer: 1, held: [2], mebibytes: 4, below: 'b' });
    const { code, stdout } = work.downfold('compare', 'a', 'c');
    expect([code, stdout]).toEqual([0, 'Images are identical.\n']);
    expect(work.json('compare', 'a', 'c')).toEqual({ identical: true, reason: null, offset: null });
  });

  it('says with 1 that they differ, and where', async () => {
    using work = bench();
    await makeImage(work, 'a', { layer: 1, held: [0, 2], mebibytes: 4, below: null });
    await makeImage(work, 'b', { layer: 1, held: [0], mebibytes: 4, below: null });
    const { code, stdout } = work.downfold('compare', 'a', 'b');
    expect([code, stdout]).toEqual([1, 'Content mismatch at offset 2097152!\n']);
    const json = work.downfold('compare', '--output', 'json', 'a', 'b');
    expect(json.code).toBe(1);
    expect(JSON.parse(json.stdout)).toEqual({
      identical: false,
      reason: 'content',
      offset: 2 << 20,
    });
    expect(work.downfold('compare', '-q', 'a', 'b')).toEqual({ code: 1, stdout: '', stderr: '' });
  });

  it.each([[['a', 'gone']], [['a', 'a', '--bogus']], [['a']], [['-f', 'vmdk', 'a', 'a']]])(
    'says with 2, never with 1, that it could not compare: %j',
    async (args) => {
      using work = bench();
      await makeImage(work, 'a', { layer: 1, held: [0], mebibytes: 1, below: null });
      const { code, stdout, stderr } = work.downfold('compare', ...args);
      expect([code, stdout]).toEqual([2, '']);
      expect(stderr).toMatch(/^downfold: .*\n$/);
    },
  );

  it('shows its progress in a pipe only with -p, to the end', async () => {
    using work = bench();
    await makeImage(work, 'a', { layer: 1, held: [0, 1], mebibytes: 4, below: null });
    expect(work.downfold('compare', 'a', 'a').stderr).toBe('');
    expect(work.downfold('compare', '-p', 'a', 'a').stderr).toMatch(
      /^( {4}\(\d+\.\d\d\/100%\)\r)+\n$/,
    );
    expect(work.downfold('compare', '-p', 'a', 'a').stderr).toContain('(100.00/100%)\r\n');
  });

  it.skipIf(!haveQemu)('says what qemu-img says', () => {
    using work = bench();
    const make = (name: string, size: string, ...io: string[]): void => {
      work.must('qemu-img', 'create', '-q', '-f', 'qcow2', name, size);
      // with data up to the end: in strict mode qemu-img tells a hole that reaches it from one that does not
      const commands = [...io, 'write -P 7 4032k 64k'].flatMap((command) => ['-c', command]);
      work.must('qemu-io', '-f', 'qcow2', ...commands, name);
    };
    make('a', '4M', 'write -P 1 0 1M', 'write -P 2 2M 64k');
    make('b', '4M', 'write -P 1 0 1M', 'write -P 2 2M 64k', 'write -P 0 3M 64k');
    make('c', '4M', 'write -P 1 0 1M', 'write -P 2 2M 64k', 'write -P 3 2124k 512');
    make('longer', '6M', 'write -P 1 0 1M', 'write -P 2 2M 64k');
    make('more', '6M', 'write -P 1 0 1M', 'write -P 2 2M 64k', 'write -P 9 5M 1k');
    const pairs = [
      ['a', 'b'],
      ['a', 'c'],
      ['c', 'b'],
      ['a', 'longer'],
      ['longer', 'a'],
      ['a', 'more'],
      ['more', 'longer'],
      ['c', 'more'],
      ['-s', 'a', 'a'],
      ['-s', 'a', 'b'],
      ['-s', 'a', 'c'],
      ['-s', 'a', 'longer'],
      ['-q', 'a', 'c'],
    ];
    for (const pair of pairs) {
      const theirs = work.run('qemu-img', 'compare', '-f', 'qcow2', '-F', 'qcow2', ...pair);
      const ours = work.downfold('compare', ...pair);
      expect([pair, ours.code, ours.stdout]).toEqual([pair, theirs.code, theirs.stdout]);
    }
  });
});
