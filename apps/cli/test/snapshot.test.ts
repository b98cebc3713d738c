import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { downfoldMany } from './many.ts';
import { complaints, IDENTICAL } from './qemu-pool.ts';
import { BIN, bench, haveQemu } from './support.ts';

it('a deed that is said twice is refused: one of the two would not be done', () => {
  using work = bench();
  work.must(process.execPath, BIN, 'create', '-q', 'x', '1M');
  for (const deed of ['-c', '-a', '-d']) {
    const { code, stderr } = work.downfold('snapshot', deed, 'a', deed, 'b', 'x');
    expect([code, stderr]).toEqual([1, expect.stringContaining('It is said twice.')]);
  }
  expect(work.json('snapshot', '-l', 'x')).toEqual([]);
});

describe.skipIf(!haveQemu)('snapshot', () => {
  it('takes, lists, applies and deletes; qemu-img agrees after each', () => {
    using work = bench();
    work.must('qemu-img', 'create', '-q', '-f', 'qcow2', 'x', '4M');
    const write = (byte: number, at: string): void =>
      void work.must('qemu-io', '-f', 'qcow2', '-c', `write -P ${byte} ${at} 1M`, 'x');
    const judge = (): void => {
      expect(complaints(work, 'x')).toEqual([]);
      const theirs = work.must('qemu-img', 'snapshot', '-l', 'x');
      expect(work.downfold('snapshot', '-l', 'x').stdout).toBe(theirs);
      expect(work.downfold('snapshot', 'x').stdout).toBe(theirs);
    };
    const showsAsThen = (then: string): string =>
      work.run('qemu-img', 'compare', '-f', 'qcow2', '-F', 'qcow2', 'x', then).stdout;
    write(1, '0');
    work.must('qemu-img', 'convert', '-O', 'qcow2', 'x', 'then1');
    expect(work.downfold('snapshot', '-c', 'one', 'x')).toEqual({
      code: 0,
      stdout: '',
      stderr: '',
    });
    judge();
    write(2, '512k');
    work.must('qemu-img', 'snapshot', '-c', 'two', 'x');
    work.must('qemu-img', 'convert', '-O', 'qcow2', 'x', 'then2');
    write(3, '2M');
    expect(work.downfold('snapshot', '-a', 'one', 'x').code).toBe(0);
    judge();
    expect(showsAsThen('then1')).toBe(IDENTICAL);
    expect(work.downfold('snapshot', '-a', '2', 'x').code).toBe(0);
    expect(showsAsThen('then2')).toBe(IDENTICAL);
    expect(work.downfold('snapshot', '-d', 'one', 'x').code).toBe(0);
    judge();
    expect(showsAsThen('then2')).toBe(IDENTICAL);
    expect(work.json<object[]>('snapshot', '-l', 'x')).toMatchObject([{ id: '2', name: 'two' }]);
    work.must('qemu-img', 'snapshot', '-d', 'two', 'x');
    judge();
  });

  it('deletes by name what has one, and else by ID', () => {
    using work = bench();
    work.must('qemu-img', 'create', '-q', '-f', 'qcow2', 'x', '1M');
    // IDs 1 and 2
    for (const name of ['2', '1', 'three']) work.must('qemu-img', 'snapshot', '-c', name, 'x');
    const left = (): unknown =>
      work
        .json<{ id: string; name: string }[]>('snapshot', '-l', 'x')
        .map(({ id, name }) => [id, name]);
    expect(work.downfold('snapshot', '-d', '1', 'x').code).toBe(0);
    expect(left()).toEqual([
      ['1', '2'],
      ['3', 'three'],
    ]);
    expect(work.downfold('snapshot', '-d', '3', 'x').code).toBe(0);
    expect(left()).toEqual([['1', '2']]);
  });

  it('refuses what makes no sense, and changes nothing', () => {
    using work = bench();
    work.must('qemu-img', 'create', '-q', '-f', 'qcow2', 'x', '1M');
    work.must('qemu-img', 'create', '-q', '-f', 'raw', 'y', '1M');
    work.must('qemu-img', 'snapshot', '-c', 'first', 'x');
    const before = work.digest();
    const lines = [
      ['-a', 'gone', 'x'],
      ['-d', 'gone', 'x'],
      // names like others, and none of them is there
      ['-d', 'pre-snapshot.1', 'x'],
      ['-a', 'snapshot.nam=gone', 'x'],
      ['-d', 'snapshot.id=1', 'x'],
      ['-c', 'one', '-l', 'x'],
      ['-c', 'one', '-d', 'one', 'x'],
      ['-f', 'raw', '-c', 'one', 'y'],
      ['-c', 'one', 'gone'],
      ['-U', '-c', 'one', 'x'],
    ].map((words) => ['snapshot', ...words]);
    for (const [index, { code, stderr }] of downfoldMany(work, lines).entries())
      expect([lines[index], code, stderr]).toEqual([
        lines[index],
        1,
        expect.stringMatching(/^downfold: .*\n$/),
      ]);
    expect(work.digest()).toEqual(before);
  });
});

describe.skipIf(!haveQemu)('convert -l', () => {
  it('reads the snapshot that was said, whatever its name has in it', () => {
    using work = bench();
    work.must('qemu-img', 'create', '-q', '-f', 'qcow2', 'x', '64k');
    for (const [index, name] of ['a', 'a=b', 'a,b'].entries()) {
      work.must('qemu-io', '-f', 'qcow2', '-c', `write -P ${index + 1} 0 64k`, 'x');
      work.must('qemu-img', 'snapshot', '-c', name, 'x');
    }
    const read = (program: 'downfold' | 'qemu-img', said: string): number | undefined => {
      const line = ['convert', '-l', said, '-O', 'raw', 'x', `${program}.raw`];
      const { code } = program === 'downfold' ? work.downfold(...line) : work.run(program, ...line);
      return code === 0 ? readFileSync(work.file(`${program}.raw`))[0] : undefined;
    };
    const said = [
      'a=b',
      'a,b',
      'snapshot.name=a',
      'snapshot.name=a=b',
      'snapshot.name=a,,b',
      'snapshot.id=2,snapshot.name=a=b',
      'snapshot.id=1,snapshot.name=a=b',
      'snapshot.name=a,b',
    ];
    const ours = said.map((one) => read('downfold', one));
    expect(ours).toEqual([2, 3, 1, 2, 3, 2, undefined, undefined]);
    expect(ours).toEqual(said.map((one) => read('qemu-img', one)));
  });
});
