import { describe, expect, it } from 'vitest';
import { downfoldMany } from './many.ts';
import { complaints, dirtyBytes } from './qemu-pool.ts';
import { type Bench, bench, haveQemu } from './support.ts';

/** Deeds for two images, one after the other; with what `qemu-img bitmap` takes. */
const deeds: readonly (readonly string[])[] = [
  ['--add', 'x', 'a'],
  ['--add', '--disable', '-g', '4k', 'x', 'b'],
  ['--merge', 'w', '-b', 'y', '-F', 'qcow2', 'x', 'a'],
  ['--merge', 'a', 'x', 'b'],
  // refused before anything is done
  ['--clear', '--merge', 'w', '-b', 'gone', '-F', 'qcow2', 'x', 'b'],
  ['--remove', '--merge', 'w', '-b', 'gone', '-F', 'qcow2', 'x', 'b'],
  ['--disable', 'x', 'a'],
  ['--add', '-g', '1M', '--merge', 'b', '--disable', 'x', 'c'],
  ['--clear', 'x', 'a'],
  ['--enable', 'x', 'b'],
  ['--remove', 'x', 'a'],
  // refused by both
  ['--add', 'x', 'b'],
  ['--merge', 'gone', 'x', 'b'],
  ['--merge', 'w', '-b', 'gone', '-F', 'qcow2', 'x', 'b'],
  ['--remove', 'x', 'a'],
  ['--clear', 'x', 'a'],
  ['--add', '-g', '3k', 'x', 'd'],
  ['--clear', '-g', '4k', 'x', 'b'],
  ['-b', 'y', '--clear', 'x', 'b'],
  ['x', 'b'],
  ['--add', 'x'],
];

function madeBy(work: Bench): void {
  work.must('sh', '-c', 'mkdir -p ours theirs');
  for (const directory of ['ours', 'theirs'])
    for (const name of ['x', 'y']) {
      const path = `${directory}/${name}`;
      work.must('qemu-img', 'create', '-q', '-f', 'qcow2', path, '5M');
      if (name === 'y') work.must('qemu-img', 'bitmap', '--add', '-f', 'qcow2', path, 'w');
      work.must('qemu-io', '-f', 'qcow2', '-c', 'write 1M 100k', '-c', 'write 3M 4k', path);
    }
}

describe.skipIf(!haveQemu)('bitmap', () => {
  it('does what qemu-img does, and refuses what it refuses', () => {
    using work = bench();
    madeBy(work);
    const run = (directory: string, line: readonly string[]): readonly string[] => [
      'bitmap',
      ...line.map((word) => (['x', 'y', 'gone'].includes(word) ? `${directory}/${word}` : word)),
    ];
    for (const line of deeds) {
      // `--merge gone` names a bitmap, `-b gone` a file
      const [ours] = downfoldMany(work, [run('ours', line)]);
      const theirs = work.run('qemu-img', ...run('theirs', line));
      expect([line, ours?.code]).toEqual([line, theirs.code]);
      const bitmaps = (directory: string): unknown =>
        JSON.parse(work.must('qemu-img', 'info', '--output=json', `${directory}/x`))[
          'format-specific'
        ].data.bitmaps;
      expect([line, bitmaps('ours')]).toEqual([line, bitmaps('theirs')]);
      for (const name of ['b', 'c'])
        if (JSON.stringify(bitmaps('theirs'))?.includes(`"${name}"`) === true)
          expect([line, dirtyBytes(work, 'ours/x', name)]).toEqual([
            line,
            dirtyBytes(work, 'theirs/x', name),
          ]);
      expect(complaints(work, 'ours/x')).toEqual([]);
    }
  });
});
