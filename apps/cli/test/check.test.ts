import { closeSync, openSync, readSync, writeSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { cases, leak } from './spoil.ts';
import { bench, haveQemu, makeChain } from './support.ts';

describe('check', () => {
  it.each(cases)('of %s', async (_, spoil, code) => {
    using work = bench();
    await makeChain(work);
    spoil(work);
    const before = work.digest();
    const human = work.downfold('check', 'base.qcow2');
    expect(human.code).toBe(code);
    const json = work.downfold('check', '--output', 'json', 'base.qcow2');
    expect(json.code).toBe(code);
    expect(JSON.parse(json.stdout)).toMatchObject({
      filename: 'base.qcow2',
      format: 'qcow2',
      'check-errors': 0,
    });
    const quiet = work.downfold('check', '-q', 'base.qcow2');
    expect([quiet.code, quiet.stdout]).toEqual([code, '']);
    expect(work.digest()).toEqual(before);
  });

  it('names each finding on stderr', async () => {
    using work = bench();
    await makeChain(work);
    leak(work);
    expect(work.downfold('check', 'base.qcow2').stderr).toBe(
      'Leaked cluster 60 refcount=1 reference=0\n',
    );
  });

  it('says with 63 that a raw image has nothing to check', () => {
    using work = bench();
    work.must('truncate', '-s', '1M', 'a.img');
    const { code, stderr } = work.downfold('check', '-f', 'raw', 'a.img');
    expect([code, stderr]).toEqual([63, 'downfold: This image format does not support checks\n']);
  });

  it('says with 1 that an image could not be checked', () => {
    using work = bench();
    work.must('truncate', '-s', '1M', 'a.img');
    const { code, stderr } = work.downfold('check', 'a.img');
    expect(code).toBe(1);
    expect(stderr).toMatch(/^downfold: Could not check 'a\.img': .*a\.img.*'-f raw'\n$/);
  });

  it.skipIf(!haveQemu).each(cases)('says of %s what qemu-img says', async (_, spoil) => {
    using work = bench();
    await makeChain(work);
    spoil(work);
    const theirs = work.run('qemu-img', 'check', '-f', 'qcow2', 'base.qcow2');
    const ours = work.downfold('check', 'base.qcow2');
    expect([ours.code, ours.stdout]).toEqual([theirs.code, theirs.stdout]);
    const json = work.run('qemu-img', 'check', '-f', 'qcow2', '--output=json', 'base.qcow2');
    const mine = work.downfold('check', '--output=json', 'base.qcow2');
    expect(JSON.parse(mine.stdout)).toEqual(JSON.parse(json.stdout));
  });
});

describe('check -r', () => {
  it.skipIf(!haveQemu)('counts in JSON as qemu-img does', async () => {
    using work = bench();
    await makeChain(work);
    leak(work);
    work.must('cp', 'base.qcow2', 'theirs.qcow2');
    const args = ['check', '-r', 'leaks', '--output=json'];
    const theirs = JSON.parse(work.must('qemu-img', ...args, 'theirs.qcow2')) as object;
    const ours = JSON.parse(work.downfold(...args, 'base.qcow2').stdout) as object;
    expect(ours).toEqual({ ...theirs, filename: 'base.qcow2' });
  });

  it('repairs nothing where nothing is wrong, and says with 63 and 1 what a check says', async () => {
    using work = bench();
    await makeChain(work);
    work.must('truncate', '-s', '1M', 'a.img');
    const before = work.digest();
    expect(work.downfold('check', '-r', 'all', 'base.qcow2').code).toBe(0);
    expect(work.downfold('check', '-r', 'all', '-f', 'raw', 'a.img').code).toBe(63);
    expect(work.downfold('check', '-r', 'all', 'a.img').code).toBe(1);
    const shared = work.downfold('check', '-r', 'all', '-U', 'base.qcow2');
    expect([shared.code, shared.stderr]).toEqual([
      1,
      expect.stringContaining('does not go with -U'),
    ]);
    expect(work.downfold('check', '-r', 'some', 'base.qcow2').code).toBe(1);
    expect(work.digest()).toEqual(before);
  });

  it('cannot tell leaks without refcount blocks, says so, and writes nothing', async () => {
    using work = bench();
    await makeChain(work);
    const file = openSync(work.file('base.qcow2'), 'r+');
    // the refcount table is where the L1 table is
    const l1 = Buffer.alloc(8);
    readSync(file, l1, 0, 8, 40);
    writeSync(file, l1, 0, 8, 48);
    closeSync(file);
    const before = work.digest();
    const { code, stderr } = work.downfold('check', '-r', 'leaks', 'base.qcow2');
    expect([code, stderr]).toEqual([1, expect.stringContaining("'downfold check -r all FILE'")]);
    expect(work.digest()).toEqual(before);
    expect(work.downfold('check', '-r', 'all', 'base.qcow2').code).toBe(0);
  });
});
