import { statSync } from 'node:fs';
import { caseContext, perTier } from '@downfold/compliance';
import { describe, expect, it } from 'vitest';
import { downfoldMany } from './many.ts';
import { complaints, dirtyBytes, hostBytes, IDENTICAL } from './qemu-pool.ts';
import { type Bench, bench, diskOf, haveQemu, makeChain, start } from './support.ts';
import { makeVaried, variedOptions } from './varied-images.ts';

/** What `qemu-img compare` says of two images, but for their sizes. */
function compare(work: Bench, [a, formatA]: Named, [b, formatB]: Named): string {
  const { stdout, stderr } = work.run('qemu-img', 'compare', '-f', formatA, '-F', formatB, a, b);
  return (stdout + stderr).replace('Warning: Image size mismatch!\n', '');
}

type Named = readonly [name: string, format: string];

describe('convert, in full', () => {
  it('replaces a file at once, when the copy is whole, and not before', async () => {
    using work = bench();
    await makeChain(work);
    work.must('sh', '-c', 'echo old >x');
    const slow = ['convert', '-O', 'qcow2', '-r', '2M', '-p', '--output', 'json'];
    const killed = start(work, ...slow, 'active.qcow2', 'x');
    await killed.said(/"phase":"copy"/);
    killed.kill('SIGKILL');
    await killed.ended;
    expect(work.must('cat', 'x')).toBe('old\n');
    // stopped: nothing is left
    const stopped = start(work, ...slow, 'active.qcow2', 'x');
    await stopped.said(/"phase":"copy"/);
    // a second one would write the same file
    expect(work.downfold('convert', 'active.qcow2', 'x').stderr).toContain('in use');
    stopped.kill('SIGINT');
    expect((await stopped.ended).code).toBe(130);
    // so does a terminal that is closed
    const left = start(work, ...slow, 'active.qcow2', 'x');
    await left.said(/"phase":"copy"/);
    left.kill('SIGHUP');
    expect((await left.ended).code).toBe(129);
    expect(work.must('cat', 'x')).toBe('old\n');
    expect(Object.keys(work.digest())).not.toContain('x.downfold-part');
    expect(work.downfold('convert', '-O', 'qcow2', 'active.qcow2', 'x').code).toBe(0);
    expect(await diskOf(work, 'x')).toBe(await diskOf(work, 'active.qcow2'));
  });

  it('refuses sizes of zeros that are none of whole sectors, or too large, as qemu-img does', async () => {
    using work = bench();
    await makeChain(work);
    for (const bad of ['100', '64M', 'x'])
      expect(work.downfold('convert', '-S', bad, 'active.qcow2', 'y').code).toBe(1);
    expect(work.downfold('convert', '-S', '16M', 'active.qcow2', 'y').code).toBe(0);
  });

  it.skipIf(!haveQemu)('writes into an image that is there with -n, zeros too', () => {
    using work = bench();
    work.must('qemu-img', 'create', '-q', '-f', 'qcow2', 'x', '3M');
    work.must('qemu-io', '-f', 'qcow2', '-c', 'write -P 1 0 64k', '-c', 'write -P 0 1M 64k', 'x');
    for (const format of ['raw', 'qcow2']) {
      work.must('qemu-img', 'create', '-q', '-f', format, format, '4M');
      work.must('qemu-io', '-f', format, '-c', 'write -P 9 0 4M', format);
      expect(work.downfold('convert', '-n', '-O', format, 'x', format).code).toBe(0);
      const read = ['read -P 1 0 64k', 'read -P 0 64k 3008k', 'read -P 9 3M 1M'];
      const all = read.flatMap((one) => ['-c', one]);
      expect(work.must('qemu-io', '-f', format, ...all, format)).not.toContain('failed');
    }
    work.must('qemu-img', 'create', '-q', '-f', 'raw', 'small', '1M');
    expect(work.downfold('convert', '-n', 'x', 'small').stderr).toContain('the copy needs 3145728');
  });

  it.skipIf(!haveQemu)('copies what an internal snapshot shows', () => {
    using work = bench();
    work.must('qemu-img', 'create', '-q', '-f', 'qcow2', 'x', '3M');
    work.must('qemu-io', '-f', 'qcow2', '-c', 'write -P 1 0 1M', 'x');
    work.must('qemu-img', 'snapshot', '-c', 'then', 'x');
    work.must('qemu-io', '-f', 'qcow2', '-c', 'write -P 2 0 1M', '-c', 'write 2M 64k', 'x');
    for (const which of ['then', '1', 'snapshot.id=1', 'snapshot.id=1,snapshot.name=then']) {
      expect(work.downfold('convert', '-l', which, '-O', 'qcow2', 'x', 'ours').code).toBe(0);
      work.must('qemu-img', 'convert', '-l', which, '-O', 'qcow2', 'x', 'theirs');
      expect(compare(work, ['ours', 'qcow2'], ['theirs', 'qcow2'])).toBe(IDENTICAL);
    }
  });

  it.skipIf(!haveQemu)('packs no cluster of zeros, however many -S asks for', () => {
    using work = bench();
    work.must('qemu-img', 'create', '-q', '-f', 'raw', 'x', '1M');
    work.must('qemu-io', '-f', 'raw', '-c', 'write 0 1k', '-c', 'write 8k 1k', 'x');
    const line = ['convert', '-f', 'raw', '-O', 'qcow2', '-c', '-S', '8k', '-o', 'cluster_size=1k'];
    expect(work.downfold(...line, 'x', 'y').code).toBe(0);
    const map = work.must('qemu-img', 'map', '--output=json', '-f', 'qcow2', 'y');
    const rows = JSON.parse(map) as readonly { start: number; length: number; data: boolean }[];
    expect(rows.filter(({ data }) => data).map(({ start, length }) => [start, length])).toEqual([
      [0, 1024],
      [8192, 1024],
    ]);
  });

  it.skipIf(!haveQemu)('leaves out zeros as -S says, and with 0 none', () => {
    using work = bench();
    work.must('qemu-img', 'create', '-q', '-f', 'raw', 'x', '4M');
    const io = ['write -P 1 0 4k', 'write -P 0 4k 1020k', 'write -P 1 1M 1M'];
    work.must('qemu-io', '-f', 'raw', ...io.flatMap((one) => ['-c', one]), 'x');
    for (const [sparse, bytes] of [
      ['4k', (1 << 20) + 4096],
      ['64k', (1 << 20) + 65_536],
      ['0', 4 << 20],
    ] as const) {
      work.must('rm', '-f', 'y');
      expect(work.downfold('convert', '-f', 'raw', '-S', sparse, 'x', 'y').code).toBe(0);
      expect([sparse, hostBytes(work, 'y')]).toEqual([sparse, bytes]);
      expect(compare(work, ['x', 'raw'], ['y', 'raw'])).toBe(IDENTICAL);
    }
  });

  it.skipIf(!haveQemu)('puts several sources one after the other', () => {
    using work = bench();
    for (const [name, size, byte] of [
      ['a', '70k', 1],
      ['b', '1M', 2],
      ['c', '512', 3],
    ] as const) {
      work.must('qemu-img', 'create', '-q', '-f', 'qcow2', name, size);
      work.must('qemu-io', '-f', 'qcow2', '-c', `write -P ${byte} 0 512`, name);
    }
    expect(work.downfold('convert', '-O', 'qcow2', 'a', 'b', 'c', 'ours').code).toBe(0);
    work.must('qemu-img', 'convert', '-O', 'qcow2', 'a', 'b', 'c', 'theirs');
    expect(compare(work, ['ours', 'qcow2'], ['theirs', 'qcow2'])).toBe(IDENTICAL);
    expect(complaints(work, 'ours')).toEqual([]);
  });

  it.skipIf(!haveQemu)('refuses bitmaps that cannot be copied before anything is', () => {
    using work = bench();
    const create = ['qemu-img', 'create', '-q', '-f', 'qcow2'] as const;
    for (const name of ['source', 'taken', 'broken']) work.must(...create, name, '8M');
    for (const name of ['source', 'taken', 'broken']) {
      work.must('qemu-io', '-f', 'qcow2', '-c', 'write 0 4M', name);
      work.must('qemu-img', 'bitmap', '--add', name, 'b');
    }
    work.must('sh', '-ec', "printf 'write 0 64k\\nabort\\n' | qemu-io -f qcow2 broken || true");
    const before = work.digest();
    for (const { code, stderr } of downfoldMany(work, [
      ['convert', '-p', '--bitmaps', '-O', 'raw', 'source', 'x'],
      ['convert', '-p', '--bitmaps', '-O', 'qcow2', '-o', 'compat=0.10', 'source', 'x'],
      ['convert', '-p', '--bitmaps', '-O', 'qcow2', 'broken', 'x'],
      ['convert', '-p', '--bitmaps', '-n', '-O', 'qcow2', 'source', 'taken'],
    ])) {
      expect([code, stderr]).toEqual([1, expect.stringContaining('bitmap')]);
      expect(stderr).not.toContain('%');
    }
    expect(work.digest()).toEqual(before);
  });

  it.skipIf(!haveQemu)('compresses, and copies bitmaps, as qemu-img does', () => {
    using work = bench();
    work.must('qemu-img', 'create', '-q', '-f', 'qcow2', 'x', '4M');
    for (const line of [
      ['--add', 'plain'],
      ['--add', '--disable', '-g', '4k', 'still'],
    ])
      work.must('qemu-img', 'bitmap', '-f', 'qcow2', ...line.slice(0, -1), 'x', line.at(-1) ?? '');
    const io = ['write -P 1 0 1M', 'write -P 2 3M 100k'];
    work.must('qemu-io', '-f', 'qcow2', ...io.flatMap((one) => ['-c', one]), 'x');
    for (const type of ['zlib', 'zstd']) {
      const line = ['convert', '-c', '--bitmaps', '-O', 'qcow2', '-o', `compression_type=${type}`];
      expect(work.downfold(...line, 'x', 'ours').stderr).toBe('');
      work.must('qemu-img', ...line, 'x', 'theirs');
      expect(compare(work, ['x', 'qcow2'], ['ours', 'qcow2'])).toBe(IDENTICAL);
      expect(complaints(work, 'ours')).toEqual([]);
      const told = (name: string): unknown => {
        const info = JSON.parse(work.must('qemu-img', 'info', '--output=json', name));
        const check = JSON.parse(work.must('qemu-img', 'check', '--output=json', name));
        return [
          info['format-specific'],
          check['compressed-clusters'],
          dirtyBytes(work, name, 'plain'),
        ];
      };
      expect(told('ours')).toEqual(told('theirs'));
    }
    // each bitmap is written once
    const plain = ['convert', '--bitmaps', '-O', 'qcow2', 'x'];
    work.must('qemu-img', ...plain, 'theirs');
    expect(work.downfold(...plain, 'ours')).toMatchObject({ code: 0 });
    const length = (name: string): number => statSync(work.file(name)).size;
    expect(length('ours')).toBe(length('theirs'));
  });

  const seeds = Array.from({ length: perTier({ quick: 0, ci: 5, long: 300 }) }, (_, seed) => seed);

  it.skipIf(!haveQemu).each(seeds)('of random image %i shows what qemu-img sees in it', (seed) => {
    using work = bench();
    const { name, format, layers } = makeVaried(work, seed, { damaged: false });
    const draw = caseContext(seed);
    const made = name.replace(/[^/]*$/, 'made');
    const line = ['convert', '-f', format, '-S', ['0', '4k', '64k', '1M'][draw.integer(4)] ?? ''];
    const below = layers.at(-2);
    const lines = [
      ['-O', 'raw'],
      ['-O', 'qcow2', '-o', variedOptions(seed).join(',')],
      ['-O', 'qcow2', '-c', '-o', variedOptions(seed + 1).join(',')],
      ...(below === undefined
        ? []
        : [['-O', 'qcow2', '-B', below.name.replace(/.*\//, ''), '-F', below.format]]),
    ];
    for (const more of lines) {
      const { code, stderr } = work.downfold(...line, ...more, name, made);
      expect([code, stderr]).toEqual([0, '']);
      const madeFormat = more[1] as string;
      expect(compare(work, [name, format], [made, madeFormat])).toBe(IDENTICAL);
      if (madeFormat === 'qcow2') expect(complaints(work, made)).toEqual([]);
      const size = (one: string, of: string): unknown =>
        JSON.parse(work.must('qemu-img', 'info', '-f', of, '--output=json', one))['virtual-size'];
      expect(size(made, madeFormat)).toBe(size(name, format));
      expect(statSync(work.file(made)).isFile()).toBe(true);
    }
  });
});
