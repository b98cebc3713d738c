import { describe, expect, it } from 'vitest';
import {
  type Bench,
  backingOf,
  bench,
  diskOf,
  haveQemu,
  isClean,
  makeChain,
  makeImage,
} from './support.ts';

const MIB = 1 << 20;
/** The middle of `CHAIN`: base <- mid <- top <- active. */
const MIDDLE = ['-b', 'base.qcow2', '--top', 'top.qcow2', 'active.qcow2'];
const NAMES = ['base.qcow2', 'mid.qcow2', 'top.qcow2', 'active.qcow2'];

/** What each image's disk reads as. */
async function disksOf(work: Bench, names: readonly string[] = NAMES): Promise<readonly string[]> {
  return Promise.all(names.map((name) => diskOf(work, name)));
}

/** What `commit --output json` promises. */
interface Result {
  readonly strategy: string;
  readonly bytesCopied: number;
  readonly bytesZeroed: number;
  readonly bytesSkippedByResume: number;
  readonly cases: Readonly<Record<string, number>>;
  readonly invalidated: readonly string[];
  readonly relinked: readonly { readonly image: string; readonly backing: string }[];
  readonly verified: boolean;
  readonly seconds: number;
}

describe('commit of the middle of a chain', () => {
  it('moves what top shows into base, and relinks active and top', async () => {
    using work = bench();
    await makeChain(work);
    const [, , top, active] = await disksOf(work);
    const { code, stdout, stderr } = work.downfold('commit', ...MIDDLE);
    expect([code, stderr]).toEqual([0, '']);
    expect(stdout).toMatch(/^Image committed\.\n/);
    expect(stdout).toContain('active.qcow2 is now backed by base.qcow2\n');
    expect(stdout).toContain('mid.qcow2 is no longer valid (marked so)\n');
    expect(await disksOf(work, ['base.qcow2', 'top.qcow2', 'active.qcow2'])).toEqual([
      top,
      top,
      active,
    ]);
    expect(await backingOf(work, 'active.qcow2')).toBe('base.qcow2');
    expect(await backingOf(work, 'top.qcow2')).toBe('base.qcow2');
    for (const name of NAMES) expect(await isClean(work, name)).toBe(true);
    expect(Object.keys(work.digest()).sort()).toEqual([...NAMES].sort());
  });

  it('says all that it did as JSON', async () => {
    using work = bench();
    await makeChain(work);
    const result = work.json<Result>('commit', '--verify', ...MIDDLE);
    expect(result).toMatchObject({
      strategy: 'copy-down',
      bytesCopied: 4 * MIB,
      bytesZeroed: 0,
      bytesSkippedByResume: 0,
      cases: { unallocated: 4 * MIB, intermediateOnly: 2 * MIB, several: MIB, topOnly: MIB },
      invalidated: [work.file('mid.qcow2')],
      verified: true,
      seconds: expect.any(Number),
    });
    expect(result.relinked).toContainEqual({
      image: work.file('active.qcow2'),
      backing: 'base.qcow2',
    });
    expect(result.relinked).toContainEqual({
      image: work.file('top.qcow2'),
      backing: 'base.qcow2',
    });
  });

  it('with --dry-run prints the plan, and changes no byte of any file', async () => {
    using work = bench();
    await makeChain(work);
    const times = work.must('stat', '-c', '%n %y %s', ...NAMES);
    const before = work.digest();
    const human = work.downfold('commit', '--dry-run', ...MIDDLE);
    expect(human.code).toBe(0);
    expect(human.stdout).toMatch(/^Plan: commit top\.qcow2 into base\.qcow2 \(copy-down\)\n/);
    expect(human.stdout).toMatch(/mid\.qcow2 .* intermediate .*invalid after/);
    expect(human.stdout).toMatch(/\nNothing was written\.\n$/);
    const plan = work.json<{ images: { path: string }[] }>('commit', '--dry-run', ...MIDDLE);
    expect(plan).toMatchObject({ planVersion: 1, bytesToCopy: 4 * MIB, chainLength: 4 });
    expect(plan.images.map(({ path }) => path)).toEqual(NAMES.map((name) => work.file(name)));
    expect(work.digest()).toEqual(before);
    expect(work.must('stat', '-c', '%n %y %s', ...NAMES)).toBe(times);
  });

  it('with -q prints nothing, with -p its progress in a pipe, as qemu-img does', async () => {
    using work = bench();
    await makeChain(work);
    expect(work.downfold('commit', '-q', '-p', ...MIDDLE)).toEqual({
      code: 0,
      stdout: '',
      stderr: '',
    });
    using other = bench();
    await makeChain(other);
    const { code, stdout, stderr } = other.downfold('commit', '-p', ...MIDDLE);
    expect(code).toBe(0);
    expect(stderr).toMatch(/^( {4}\(\d+\.\d\d\/100%\)\r)+\n$/);
    expect(stderr).toContain('(100.00/100%)\r\n');
    expect(stdout).toMatch(/^Image committed\.\n/);
  });

  it('with -p ends at 100% also when there was nothing to copy', async () => {
    using work = bench();
    await makeChain(work, [
      { name: 'base', mebibytes: [0] },
      { name: 'top', mebibytes: [] },
    ]);
    const { code, stderr } = work.downfold('commit', '-p', 'top.qcow2');
    expect([code, stderr]).toEqual([0, '    (100.00/100%)\r\n']);
  });

  it('with -p --output json tells its progress as lines of JSON on stderr', async () => {
    using work = bench();
    await makeChain(work);
    const { stdout, stderr } = work.downfold('commit', '-p', '--output', 'json', ...MIDDLE);
    expect(JSON.parse(stdout)).toMatchObject({ bytesCopied: 4 * MIB });
    const lines = stderr
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as object);
    expect(lines.length).toBeGreaterThan(0);
    for (const line of lines)
      expect(line).toEqual({
        progress: {
          phase: expect.any(String),
          done: expect.any(Number),
          total: expect.any(Number),
        },
      });
  });

  it('with --delete deletes what is no longer needed, and nothing else', async () => {
    using work = bench();
    await makeChain(work);
    const [, , top, active] = await disksOf(work);
    const { stdout } = work.downfold('commit', '--delete', ...MIDDLE);
    expect(stdout).toContain('mid.qcow2 is deleted\n');
    expect(Object.keys(work.digest())).toEqual(['active.qcow2', 'base.qcow2', 'top.qcow2']);
    expect(await disksOf(work, ['top.qcow2', 'active.qcow2'])).toEqual([top, active]);
  });

  it('with -r copies no faster', async () => {
    using work = bench();
    await makeChain(
      work,
      [
        { name: 'base', mebibytes: [] },
        { name: 'top', mebibytes: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11] },
      ],
      12,
    );
    const { seconds } = work.json<Result>('commit', '-d', '-r', '8M', 'top.qcow2');
    // pieces of 4 MiB: the last of three starts when 8 MiB have been paid for
    expect(seconds).toBeGreaterThanOrEqual(1);
    expect(seconds).toBeLessThan(10);
  });
});

describe('commit of the leaf', () => {
  it('goes into its backing file, and empties it, as qemu-img commit does', async () => {
    using work = bench();
    await makeChain(work);
    const active = await diskOf(work, 'active.qcow2');
    expect(work.downfold('commit', 'active.qcow2').code).toBe(0);
    expect(await disksOf(work, ['top.qcow2', 'active.qcow2'])).toEqual([active, active]);
    expect(await backingOf(work, 'active.qcow2')).toBe('top.qcow2');
    const rows = work.json<{ depth: number }[]>('map', 'active.qcow2');
    expect(rows.filter(({ depth }) => depth === 0)).toEqual([]);
  });

  it.each([[['-d']], [['-b', 'top.qcow2']], [['-b', 'base.qcow2']]])(
    'with %j leaves it its data',
    async (args) => {
      using work = bench();
      await makeChain(work);
      const active = await diskOf(work, 'active.qcow2');
      expect(work.downfold('commit', ...args, 'active.qcow2').code).toBe(0);
      expect(await diskOf(work, args.at(-1) === '-d' ? 'top.qcow2' : (args.at(-1) ?? ''))).toBe(
        active,
      );
      expect(await diskOf(work, 'active.qcow2')).toBe(active);
      const rows = work.json<{ depth: number; start: number }[]>('map', 'active.qcow2');
      expect(rows.filter(({ depth }) => depth === 0).map(({ start }) => start)).toEqual([5 * MIB]);
    },
  );

  it.skipIf(!haveQemu).each([[[]], [['-d']], [['-b', 'base']], [['-b', 'mid']]])(
    'with %j leaves every disk as qemu-img commit does, and QEMU finds nothing to say',
    async (args) => {
      using work = bench();
      work.must('mkdir', 'theirs', 'ours');
      const image = (...create: string[]): string =>
        work.must('qemu-img', 'create', '-q', '-f', 'qcow2', ...create);
      const write = (name: string, ...io: string[]): string =>
        work.must('qemu-io', '-f', 'qcow2', ...io.flatMap((command) => ['-c', command]), name);
      image('theirs/base', '8M');
      write('theirs/base', 'write -P 1 0 4M', 'write -P 2 7M 1M');
      image('-b', 'base', '-F', 'qcow2', '-o', 'cluster_size=4k', 'theirs/mid', '6M');
      write('theirs/mid', 'write -P 3 1M 300k', 'write -z 3M 200k');
      image('-b', 'mid', '-F', 'qcow2', '-o', 'extended_l2=on', 'theirs/top', '9M');
      write(
        'theirs/top',
        'write -P 4 1100k 50k',
        'write -z 0 64k',
        'write -c -P 5 5M 64k',
        'write -P 6 8M 100k',
      );
      work.must('cp', '-r', 'theirs/.', 'ours/');
      work.must('qemu-img', 'commit', '-q', '-f', 'qcow2', ...args, 'theirs/top');
      const { code, stderr } = work.downfold('commit', '--verify', ...args, 'ours/top');
      expect([code, stderr]).toEqual([0, '']);
      const target = args.includes('base') ? 'base' : 'mid';
      for (const name of [target, 'top']) {
        work.must(
          'qemu-img',
          'compare',
          '-q',
          '-f',
          'qcow2',
          '-F',
          'qcow2',
          `theirs/${name}`,
          `ours/${name}`,
        );
        work.must('qemu-img', 'check', '-q', '-f', 'qcow2', `ours/${name}`);
      }
    },
  );
});

describe.skipIf(!haveQemu)('an image that QEMU left dirty', () => {
  /** Lazy refcounts, and a writer that was killed. */
  function dirty(work: Bench): void {
    const create = ['create', '-q', '-f', 'qcow2'];
    work.must('qemu-img', ...create, '-o', 'lazy_refcounts=on', 'base.qcow2', '1M');
    work.run('qemu-io', '-f', 'qcow2', '-c', 'write -q -P 5 0 64k', '-c', 'abort', 'base.qcow2');
    work.must('qemu-img', ...create, '-b', 'base.qcow2', '-F', 'qcow2', 'top.qcow2');
    expect(work.json('info', 'base.qcow2')).toMatchObject({ 'dirty-flag': true });
  }

  it.each([
    ['commit', 'top.qcow2'],
    ['commit', '--plan', 'p.json', 'top.qcow2'],
    ['stream', 'top.qcow2'],
  ])('is mended on the way: %s %s', async (...line) => {
    using work = bench();
    dirty(work);
    const before = await diskOf(work, 'top.qcow2');
    if (line.includes('--plan'))
      expect(work.downfold('commit', '--dry-run', '--plan-out', 'p.json', 'top.qcow2').code).toBe(
        0,
      );
    expect(work.downfold(...line, '-q')).toMatchObject({ code: 0, stderr: '' });
    expect(await diskOf(work, 'top.qcow2')).toBe(before);
    // what a stream only reads stays as it is
    const written = line[0] === 'stream' ? ['top.qcow2'] : ['base.qcow2', 'top.qcow2'];
    for (const name of written) work.must('qemu-img', 'check', '-q', name);
  });

  it('is refused all the same when somebody else changed it since the plan was made', async () => {
    using work = bench();
    dirty(work);
    expect(work.downfold('commit', '--plan-out', 'p.json', '--dry-run', 'top.qcow2').code).toBe(0);
    work.must('qemu-io', '-f', 'qcow2', '-c', 'write -q -P 6 128k 64k', 'base.qcow2');
    const { code, stderr } = work.downfold('commit', '--plan', 'p.json', 'top.qcow2');
    expect([code, stderr]).toEqual([1, expect.stringContaining('changed since the plan was made')]);
  });
});

describe('commit and other images that share the chain', () => {
  /** The chain, with overlays of base and mid, in another directory and in the same one. */
  async function shared(): Promise<Bench> {
    const work = bench();
    await makeChain(work);
    work.must('mkdir', 'pool');
    await makeImage(work, 'near.qcow2', { layer: 8, held: [6], mebibytes: 8, below: 'mid.qcow2' });
    await makeImage(work, 'far.qcow2', {
      layer: 9,
      held: [7],
      mebibytes: 8,
      below: work.file('base.qcow2'),
    });
    work.must('mv', 'far.qcow2', 'pool/');
    return work;
  }

  it('refuses, naming every image that it would strand, before it writes a byte', async () => {
    using work = await shared();
    const files = (): string => work.must('sh', '-c', 'sha256sum *.qcow2* pool/*');
    const before = files();
    const { code, stdout, stderr } = work.downfold('commit', '--pool', 'pool', ...MIDDLE);
    expect([code, stdout]).toEqual([1, '']);
    expect(stderr).toContain(work.file('near.qcow2'));
    expect(stderr).toContain(work.file('pool/far.qcow2'));
    expect(stderr).toMatch(
      /^downfold: Could not commit 'active\.qcow2': .*--invalidate-siblings.*\n$/,
    );
    expect(stderr.match(/--invalidate-siblings/g)).toHaveLength(1);
    const json = work.downfold('commit', '--output', 'json', '--pool', 'pool', ...MIDDLE);
    expect(JSON.parse(json.stdout)).toMatchObject({ error: { class: 'COMMIT_STRANDS' } });
    expect(files()).toBe(before);
  });

  it('sees without --pool only what lies beside the images of the chain', async () => {
    using work = await shared();
    const { stderr } = work.downfold('commit', ...MIDDLE);
    expect(stderr).toContain('near.qcow2');
    expect(stderr).not.toContain('far.qcow2');
  });

  it('with --invalidate-siblings goes on, and marks them', async () => {
    using work = await shared();
    const active = await diskOf(work, 'active.qcow2');
    const { code, stdout } = work.downfold(
      'commit',
      '--pool',
      'pool',
      '--invalidate-siblings',
      ...MIDDLE,
    );
    expect(code).toBe(0);
    for (const name of ['near.qcow2', 'pool/far.qcow2']) {
      expect(stdout).toContain(`${name} is no longer valid (marked so)\n`);
      expect(work.json('info', name)).toMatchObject({ 'x-mark': { state: 'invalid' } });
    }
    expect(await diskOf(work, 'active.qcow2')).toBe(active);
  });

  it('relinks other overlays of top too', async () => {
    using work = bench();
    await makeChain(work);
    await makeImage(work, 'twin.qcow2', { layer: 7, held: [0], mebibytes: 8, below: 'top.qcow2' });
    const twin = await diskOf(work, 'twin.qcow2');
    expect(work.downfold('commit', '-q', ...MIDDLE).code).toBe(0);
    expect(await backingOf(work, 'twin.qcow2')).toBe('base.qcow2');
    expect(await diskOf(work, 'twin.qcow2')).toBe(twin);
  });
});

describe('commit refuses', () => {
  it.each([
    [['base.qcow2'], 'does not have a backing file'],
    [['-b', 'gone', 'active.qcow2'], "Did not find 'gone' in the backing chain"],
    [['--top', 'gone', 'active.qcow2'], "Did not find 'gone' in the backing chain"],
    [['-b', 'active.qcow2', '--top', 'mid.qcow2', 'active.qcow2'], 'does not lie below'],
    [['--strategy', 'magic', 'active.qcow2'], 'Allowed choices are copy-down, '],
    [['-r', 'fast', 'active.qcow2'], "Invalid rate 'fast'"],
    [['--keep-siblings', '--invalidate-siblings', 'active.qcow2'], 'cannot be used with'],
    [['-f', 'raw', 'active.qcow2'], 'does not have a backing file'],
  ])('%j, and changes nothing', async (args, why) => {
    using work = bench();
    await makeChain(work);
    const before = work.digest();
    const { code, stdout, stderr } = work.downfold('commit', ...args);
    expect([code, stdout]).toEqual([1, '']);
    expect(stderr).toContain(why);
    expect(stderr).toMatch(/^downfold: .*\n$/);
    expect(work.digest()).toEqual(before);
  });
});
