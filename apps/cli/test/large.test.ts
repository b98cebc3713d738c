import { describe, expect, it } from 'vitest';
import { complaints, IDENTICAL } from './qemu-pool.ts';
import { bench, haveQemu } from './support.ts';

/** `walks`: qemu-img goes through all of it within seconds. */
const LARGE = [
  { cluster: '64k', size: '66T', last: 66 * 2 ** 40 - 2 ** 20, walks: true },
  { cluster: '2M', size: '4P', last: 2 ** 52 - 2 ** 20, walks: false },
] as const;

describe.skipIf(!haveQemu)('a disk above 64 TiB', () => {
  it.each(LARGE)('of $size is what qemu-img says', ({ cluster, size, last, walks }) => {
    using work = bench();
    const options = ['-o', `cluster_size=${cluster}`];
    expect(work.downfold('create', '-q', ...options, 'x', size)).toMatchObject({ code: 0 });
    for (const at of [0, 65 * 2 ** 40, last])
      work.must('qemu-io', '-f', 'qcow2', '-c', `write -q -P 7 ${at} 1M`, 'x');
    const walking = [
      ['map', '-f', 'qcow2', '--output=json', 'x'],
      ['measure', '-f', 'qcow2', '-O', 'qcow2', ...options, '--output=json', 'x'],
    ];
    for (const line of [
      ['info', '-f', 'qcow2', '--output=json', 'x'],
      ['check', '-f', 'qcow2', '--output=json', 'x'],
      ...(walks ? walking : []),
    ])
      expect([line, work.downfold(...line).stdout]).toEqual([line, work.must('qemu-img', ...line)]);
    expect(work.downfold('convert', '-O', 'qcow2', ...options, 'x', 'y')).toMatchObject({
      code: 0,
    });
    expect(work.downfold('compare', 'x', 'y').stdout).toBe(IDENTICAL);
    work.must('qemu-io', '-f', 'qcow2', '-c', `read -q -P 7 ${last} 1M`, 'y');
    expect(work.json<object[]>('map', 'y').at(-1)).toMatchObject({ data: true });
    expect(complaints(work, 'x', 'y')).toEqual([]);
    expect(work.downfold('resize', '-q', '--shrink', 'x', '-1M')).toMatchObject({ code: 0 });
    expect(work.downfold('resize', '-q', 'x', '+512k')).toMatchObject({ code: 0 });
    expect(complaints(work, 'x')).toEqual([]);
  });
});

it('a file that is too large for its file system is not told to need space', () => {
  using work = bench();
  const { code, stderr } = work.downfold('create', '-f', 'raw', 'x', '7P');
  expect([code, stderr]).toEqual([1, expect.stringMatching(/larger than files can be there/)]);
  expect(stderr).not.toContain('free some space');
  expect(work.digest()).toEqual({});
});
