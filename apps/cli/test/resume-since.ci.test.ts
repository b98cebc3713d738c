import { closeSync, existsSync, openSync, readFileSync, readSync, writeSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { complaints, makePool, type Pool } from './qemu-pool.ts';
import { haveStrace, injected, JOURNAL, LARGE, MIDDLE, stopped } from './stopped-job.ts';
import { type Bench, BIN, bench, haveQemu } from './support.ts';

// What somebody does with the images between a job's end, which was none, and who goes on with it.
let pool: Pool;
beforeAll(() => {
  if (haveQemu) pool = makePool(LARGE);
});
afterAll(() => pool?.[Symbol.dispose]());

/** What the disk of an image shows now, or one of its snapshots, as a raw file of that name. */
function shown(work: Bench, image: string, raw: string, ...which: readonly string[]): string {
  work.must('qemu-img', 'convert', ...which, '-f', 'qcow2', '-O', 'raw', image, raw);
  return raw;
}

function same(work: Bench, image: string, raw: string): boolean {
  return work.run('qemu-img', 'compare', '-f', 'qcow2', '-F', 'raw', image, raw).code === 0;
}

function write(work: Bench, image: string, ...commands: readonly string[]): void {
  work.must('qemu-io', '-f', 'qcow2', ...commands.flatMap((one) => ['-c', one]), image);
}

/** How many times a job writes to a file. */
function writesTo(work: Bench, file: string, ...args: readonly string[]): number {
  const trace = ['-f', '-qq', '-o', 'trace', '-P', work.file(file), '-e', 'trace=pwrite64'];
  work.must('strace', ...trace, process.execPath, BIN, ...args);
  const count = readFileSync(work.file('trace'), 'latin1').split('pwrite64(').length - 1;
  work.must('rm', 'trace');
  return count;
}

/** Makes the cluster at a byte of a small disk unallocated, as other programs may: it reads through what lies below once more. */
function letGo(path: string, at: number): void {
  const file = openSync(path, 'r+');
  const word = Buffer.alloc(8);
  const offsetAt = (place: number): number => {
    readSync(file, word, 0, 8, place);
    return Number(word.readBigUInt64BE() & 0x00ff_ffff_ffff_fe00n);
  };
  const table = offsetAt(offsetAt(40));
  writeSync(file, Buffer.alloc(8), 0, 8, table + (at / 65_536) * 8);
  closeSync(file);
}

const ready = haveQemu && haveStrace;

describe.skipIf(!ready)('what was written since all data was in place', () => {
  it.each(['copy-down', 'preserve', 'staged'])(
    'stays in the image that %s was to empty',
    (strategy) => {
      using work = pool.copy();
      const inject = 'pwrite64:error=EIO:when=1';
      const args = ['commit', '--strategy', strategy, 'active.qcow2'];
      expect(injected(work, 'active.qcow2', inject, ...args).code).toBe(1);
      expect(existsSync(work.file(JOURNAL))).toBe(true);
      // over what was committed, and beside it
      write(work, 'active.qcow2', 'write -q -P 0x55 26648k 8k', 'write -q -P 0x56 1M 128k');
      const before = shown(work, 'active.qcow2', 'before');
      const { code, stdout } = work.downfold('resume', 'active.qcow2');
      expect([code, stdout]).toEqual([0, expect.stringContaining('keeps 192 KiB')]);
      expect(same(work, 'active.qcow2', before)).toBe(true);
      expect(complaints(work, 'active.qcow2', 'top.qcow2')).toEqual([]);
      expect(existsSync(work.file(JOURNAL))).toBe(false);
    },
  );

  it('is what the image shows that a stream had filled: it is gone through again', () => {
    using counted = pool.copy();
    const args = ['stream', '-b', 'base.qcow2', 'active.qcow2'];
    const last = writesTo(counted, JOURNAL, ...args);
    using work = pool.copy();
    const inject = `pwrite64:signal=SIGKILL:when=${last}`;
    expect(injected(work, JOURNAL, inject, ...args).code).not.toBe(0);
    expect(existsSync(work.file(JOURNAL))).toBe(true);
    letGo(work.file('active.qcow2'), 5 << 20);
    write(work, 'active.qcow2', 'write -q -P 9 0 64k');
    const before = shown(work, 'active.qcow2', 'before');
    expect(work.downfold('resume', '-q', 'active.qcow2').code).toBe(0);
    expect(same(work, 'active.qcow2', before)).toBe(true);
    expect(work.must('qemu-img', 'info', 'active.qcow2')).toContain('backing file: base.qcow2');
  });
});

describe.skipIf(!haveQemu)('a job that was interrupted is not gone on with', () => {
  it('beside an image that reads through what it changes, and was made since', async () => {
    using work = pool.copy();
    await stopped(work, 'SIGKILL', 'commit', '--strategy', 'staged', ...MIDDLE);
    const create = ['create', '-q', '-f', 'qcow2', '-F', 'qcow2', '-b'];
    work.must('qemu-img', ...create, 'base.qcow2', 'new.qcow2');
    const before = shown(work, 'new.qcow2', 'before');
    const { code, stderr } = work.downfold('resume', 'active.qcow2');
    expect([code, stderr]).toEqual([1, expect.stringContaining('new.qcow2: reads through')]);
    expect(work.downfold('abort', '-q', 'active.qcow2').code).toBe(0);
    expect(same(work, 'new.qcow2', before)).toBe(true);
  });

  it('where the names of its references lead to other files', async () => {
    using work = bench();
    work.must('mkdir', 'old');
    const at = (name: string): string => work.file(`old/${name}`);
    let below = '';
    for (const { name, size, io } of LARGE) {
      const over = below === '' ? [] : ['-F', 'qcow2', '-b', at(below)];
      work.must('qemu-img', 'create', '-q', '-f', 'qcow2', ...over, `old/${name}`, size);
      write(work, `old/${name}`, ...io.map((one) => one.replace('write', 'write -q')));
      below = name;
    }
    work.must('sh', '-c', 'cp old/* .');
    for (const [index, { name }] of LARGE.entries())
      if (index > 0)
        work.must(
          ...(['qemu-img', 'rebase', '-u', '-f', 'qcow2', '-F', 'qcow2', '-b'] as const),
          work.file(LARGE[index - 1]?.name ?? ''),
          name,
        );
    await stopped(work, 'SIGKILL', 'commit', ...MIDDLE);
    // moved away, and others take the place
    work.must('sh', '-ec', 'mkdir new; mv *.qcow2 *.downfold new; cp old/*.qcow2 .');
    const { code, stderr } = work.downfold(
      ...['resume', '--allow', work.file('.'), 'new/active.qcow2'],
    );
    expect([code, stderr]).toEqual([1, expect.stringContaining('nothing was relinked')]);
    expect(work.downfold('abort', '-q', 'new/active.qcow2').code).toBe(0);
  });

  it('by a copy of its journal beside another image', async () => {
    using work = pool.copy();
    await stopped(work, 'SIGKILL', 'commit', ...MIDDLE);
    work.must('cp', JOURNAL, 'top.qcow2.downfold');
    for (const verb of ['resume', 'abort'])
      expect(work.downfold(verb, 'top.qcow2')).toMatchObject({
        code: 1,
        stderr: expect.stringContaining('does not lie beside it'),
      });
  });

  it('when an image is gone; it can be given up all the same', async () => {
    using work = pool.copy();
    work.must('qemu-img', 'create', '-q', '-f', 'qcow2', '-F', 'qcow2', '-b', 'top.qcow2', 'twin');
    await stopped(work, 'SIGKILL', 'commit', ...MIDDLE);
    work.must('rm', 'twin');
    expect(work.downfold('resume', 'active.qcow2')).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('downfold abort'),
    });
    expect(work.downfold('abort', '-q', 'active.qcow2').code).toBe(0);
    expect(pool.compare(work, 'active.qcow2')).toContain('identical');
  });
});

describe.skipIf(!haveQemu)(
  'internal snapshots that would show something else stand in the way',
  () => {
    it.each([
      ['commit', 'active.qcow2'],
      ['stream', 'active.qcow2'],
      ['rebase', '-b', 'mid.qcow2', '-F', 'qcow2', 'active.qcow2'],
    ])('of %s', (...line) => {
      using work = pool.copy();
      work.must('qemu-img', 'snapshot', '-c', 's1', 'active.qcow2');
      const before = work.digest();
      const { code, stderr } = work.downfold(...line);
      expect([code, stderr]).toEqual([1, expect.stringContaining("internal snapshots ('s1')")]);
      expect(work.digest()).toEqual(before);
    });

    it('of rebase, of an image that had nothing below it', () => {
      using work = pool.copy();
      work.must('qemu-img', 'create', '-q', '-f', 'qcow2', 'alone', '1M');
      work.must('qemu-img', 'snapshot', '-c', 's1', 'alone');
      const before = work.digest();
      const line = ['rebase', '-b', 'base.qcow2', '-F', 'qcow2', 'alone'];
      const { code, stderr } = work.downfold(...line);
      expect([code, stderr]).toEqual([1, expect.stringContaining("internal snapshots ('s1')")]);
      expect(work.digest()).toEqual(before);
      expect(work.downfold('rebase', '-q', '-b', '', 'alone').code).toBe(0);
    });

    it('of a sibling that is to be kept, and not of the overlay', () => {
      using work = pool.copy();
      const create = ['create', '-q', '-f', 'qcow2', '-F', 'qcow2', '-b'];
      work.must('qemu-img', ...create, 'base.qcow2', 'sibling');
      work.must('qemu-img', 'snapshot', '-c', 's1', 'active.qcow2');
      const own = shown(work, 'active.qcow2', 'own', '-l', 's1');
      work.must('qemu-img', 'snapshot', '-c', 's2', 'sibling');
      const args = ['commit', '-q', '--keep-siblings', ...MIDDLE];
      expect(work.downfold(...args)).toMatchObject({
        code: 1,
        stderr: expect.stringContaining("('s2')"),
      });
      work.must('qemu-img', 'snapshot', '-d', 's2', 'sibling');
      expect(work.downfold(...args)).toMatchObject({ code: 0 });
      const after = shown(work, 'active.qcow2', 'after', '-l', 's1');
      work.must('cmp', own, after);
    });
  },
);

it.skipIf(!haveQemu)(
  'an overlay in a format that is not read here is in the way of a commit',
  () => {
    using work = pool.copy();
    work.must('qemu-img', 'create', '-q', '-f', 'qed', '-F', 'qcow2', '-b', 'base.qcow2', 's.qed');
    expect(work.downfold('commit', ...MIDDLE)).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('s.qed'),
    });
  },
);
