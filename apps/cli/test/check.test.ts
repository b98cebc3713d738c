import { closeSync, openSync, readSync, truncateSync, writeSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { type Bench, bench, haveQemu, makeChain } from './support.ts';

/** Position of the first refcount block of an image, by the two pointers that lead there. */
function refcountBlockOf(file: number): number {
  const pointer = Buffer.alloc(8);
  readSync(file, pointer, 0, 8, 48);
  readSync(file, pointer, 0, 8, Number(pointer.readBigUInt64BE()));
  return Number(pointer.readBigUInt64BE());
}

/** Writes 16-bit refcounts into an image with clusters of 64 KiB; the file is made long enough. */
function setRefcount(work: Bench, name: string, cluster: number, count: number): void {
  const file = openSync(work.file(name), 'r+');
  const bytes = Buffer.alloc(2);
  bytes.writeUInt16BE(count);
  writeSync(file, bytes, 0, 2, refcountBlockOf(file) + 2 * cluster);
  closeSync(file);
}

const LEAKED = 60;
const leak = (work: Bench): void => {
  setRefcount(work, 'base.qcow2', LEAKED, 1);
  truncateSync(work.file('base.qcow2'), (LEAKED + 1) * 65_536);
};
/** Cluster 5 holds data: it is referenced, and now counted as free. */
const corrupt = (work: Bench): void => setRefcount(work, 'base.qcow2', 8, 0);

const cases: readonly [name: string, spoil: (work: Bench) => void, code: number][] = [
  ['a clean image', () => {}, 0],
  ['a leak', leak, 3],
  ['a corruption', corrupt, 2],
  ['both', (work) => [leak(work), corrupt(work)], 2],
];

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
