import { readFileSync } from 'node:fs';
import { currentTier, untilTimed } from '@downfold/compliance';
import { describe, expect, test } from 'vitest';
import {
  create,
  judged,
  type Keys,
  keep,
  must,
  OBJECTS,
  secrets,
  write,
  writeKeys,
} from './encryption-support.ts';
import { type Bench, bench, haveQemu } from './support.ts';

/** base <- mid <- top <- active, some of them encrypted. Every allocation case occurs, also parts of clusters. */
function chain(work: Bench, keys: Keys): void {
  writeKeys(work);
  const files = ['base', 'mid', 'top', 'active'].map((name) => `${name}.qcow2`);
  for (const [index, file] of files.entries()) create(work, keys, file, files[index - 1] ?? null);
  write(work, keys, 'base.qcow2', '-P 1 0 3M');
  write(work, keys, 'mid.qcow2', '-P 2 1M 2M', '-P 3 3000k 700', '-z 128k 64k');
  write(work, keys, 'top.qcow2', '-P 4 2M 1M', '-P 5 4M 1M', '-P 6 777 1000');
  write(work, keys, 'active.qcow2', '-P 7 5M 100k');
  for (const file of files) keep(work, keys, file, `${file}.raw`);
}

const mixes: Readonly<Record<string, Keys>> = {
  'different keys': {
    'base.qcow2': 'k1',
    'mid.qcow2': 'k2',
    'top.qcow2': 'k1',
    'active.qcow2': 'k2',
  },
  'plain into encrypted': { 'base.qcow2': 'k1' },
  'encrypted into plain': { 'mid.qcow2': 'k1', 'top.qcow2': 'k2' },
};

/** The product of all takes minutes. */
const all = currentTier() === 'long';

const mixed = Object.entries(mixes).slice(0, all ? 3 : 1);

describe.skipIf(!haveQemu).each(mixed)('%s', (_, keys) => {
  const given = secrets(keys);

  const strategies: readonly [string, readonly string[]][] = [
    ['copy-down', []],
    ['preserve', ['--strategy', 'preserve']],
    ['depth-first', ['--strategy', 'depth-first']],
    ['staged', ['--strategy', 'staged', '--keep-undo']],
  ];
  test.each(strategies.slice(0, all ? 4 : 1))(
    'commit, %s: top and active read as before',
    (__, how) => {
      using work = bench();
      chain(work, keys);
      const ends = ['-b', 'base.qcow2', '--top', 'top.qcow2'];
      must(work.downfold('commit', '-q', '--verify', ...given, ...how, ...ends, 'active.qcow2'));
      judged(work, keys, 'active.qcow2', 'active.qcow2.raw');
      judged(work, keys, 'top.qcow2', 'top.qcow2.raw');
      judged(work, keys, 'base.qcow2', 'top.qcow2.raw');
      // what was written as text of one byte is not in an encrypted file
      const base = readFileSync(work.file('base.qcow2'));
      expect(base.includes(Buffer.alloc(4096, 4))).toBe(!('base.qcow2' in keys));
    },
  );

  test('commit of the leaf, stream, rebase: the disk reads as before', () => {
    using work = bench();
    chain(work, keys);
    must(work.downfold('commit', '-q', ...given, 'active.qcow2'));
    judged(work, keys, 'active.qcow2', 'active.qcow2.raw');
    judged(work, keys, 'top.qcow2', 'active.qcow2.raw');
    write(work, keys, 'active.qcow2', '-P 9 1M 1000');
    keep(work, keys, 'active.qcow2', 'now.raw');
    must(work.downfold('stream', '-q', ...given, '-b', 'mid.qcow2', 'active.qcow2'));
    judged(work, keys, 'active.qcow2', 'now.raw');
    must(
      work.downfold('rebase', '-q', ...given, '-b', 'base.qcow2', '-F', 'qcow2', 'active.qcow2'),
    );
    judged(work, keys, 'active.qcow2', 'now.raw');
    must(work.downfold('stream', '-q', ...given, 'active.qcow2'));
    judged(work, keys, 'active.qcow2', 'now.raw');
  });
});

test.skipIf(!haveQemu)('convert, resize, snapshot, bitmap, dd, and a target that is there', () => {
  using work = bench();
  const keys: Keys = { 'one.qcow2': 'k1', 'two.qcow2': 'k2', 'three.qcow2': 'k2' };
  writeKeys(work);
  create(work, keys, 'one.qcow2', null);
  write(work, keys, 'one.qcow2', '-P 1 0 3M', '-P 2 5000 100');
  keep(work, keys, 'one.qcow2', 'one.raw');
  const luks = ['-o', 'encrypt.format=luks,encrypt.iter-time=1'];
  const given = ['--secret', 'one.qcow2=k1', '--secret', 'k2'];
  must(work.downfold('convert', ...given, '-O', 'qcow2', ...luks, 'one.qcow2', 'two.qcow2'));
  judged(work, keys, 'two.qcow2', 'one.raw');
  create(work, keys, 'three.qcow2', null);
  must(work.downfold('convert', ...given, '-n', '-O', 'qcow2', 'one.qcow2', 'three.qcow2'));
  judged(work, keys, 'three.qcow2', 'one.raw');
  must(
    work.downfold('dd', ...given, '-O', 'raw', 'if=two.qcow2', 'of=part.raw', 'bs=1M', 'count=1'),
  );
  expect(readFileSync(work.file('part.raw')).subarray(5000, 5100)).toEqual(Buffer.alloc(100, 2));
  must(work.downfold('snapshot', ...given, '-c', 'before', 'two.qcow2'));
  write(work, keys, 'two.qcow2', '-P 3 1M 70000');
  must(work.downfold('snapshot', ...given, '-a', 'before', 'two.qcow2'));
  judged(work, keys, 'two.qcow2', 'one.raw');
  must(work.downfold('bitmap', ...given, '--add', 'two.qcow2', 'changes'));
  must(work.downfold('resize', ...given, 'two.qcow2', '+1M'));
  work.must('truncate', '-s', '9M', 'one.raw');
  judged(work, keys, 'two.qcow2', 'one.raw');
  const refused = work.downfold(
    'convert',
    ...given,
    '-c',
    '-O',
    'qcow2',
    ...luks,
    'one.qcow2',
    'small.qcow2',
  );
  expect(refused.code).toBe(1);
  expect(refused.stderr).toContain('compressed clusters in an encrypted image');
});

test.skipIf(!haveQemu)("an encrypted image by qemu-img's words, as QEMU has it", () => {
  using work = bench();
  const keys: Keys = { 'disk.qcow2': 'k1' };
  writeKeys(work);
  create(work, keys, 'disk.qcow2', null);
  write(work, keys, 'disk.qcow2', '-P 1 5000 100k');
  const image = 'driver=qcow2,encrypt.key-secret=k1,file.filename=disk.qcow2';
  must(work.downfold('convert', ...OBJECTS, '--image-opts', image, '-O', 'raw', 'disk.raw'));
  judged(work, keys, 'disk.qcow2', 'disk.raw');
  keep(work, keys, 'disk.qcow2', 'kept.raw');
  const other = 'driver=raw,file.filename=kept.raw';
  must(work.downfold('compare', ...OBJECTS, '--image-opts', image, other));
  must(work.downfold('check', ...OBJECTS, '--image-opts', image));
  for (const form of ['human', 'json']) {
    const [ours, theirs] = [
      must(work.downfold('info', `--output=${form}`, 'disk.qcow2')),
      work.must('qemu-img', 'info', `--output=${form}`, 'disk.qcow2'),
    ];
    if (form === 'json') expect(JSON.parse(ours)).toMatchObject(JSON.parse(theirs));
    else expect(ours).toBe(theirs);
  }
  const map = ['map', '--output=json'];
  const theirs = work.must('qemu-img', ...map, ...OBJECTS, '--image-opts', image);
  expect(JSON.parse(must(work.downfold(...map, 'disk.qcow2')))).toEqual(JSON.parse(theirs));
  const measure = ['measure', '--output=json', '-O', 'qcow2', '--size', '1G', ...OBJECTS];
  const how = ['-o', 'encrypt.format=luks,encrypt.key-secret=k1,cluster_size=4k'];
  expect(JSON.parse(must(work.downfold(...measure, ...how)))).toEqual(
    JSON.parse(untilTimed(() => work.must('qemu-img', ...measure, ...how))),
  );
});
