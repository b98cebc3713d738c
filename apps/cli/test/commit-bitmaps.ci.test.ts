import { spawnSync } from 'node:child_process';
import { describe, expect, it } from 'vitest';
import { downfoldMany } from './many.ts';
import { type Bench, bench, haveQemu, start } from './support.ts';

const haveNbd = ['nbdinfo', 'qemu-nbd'].every(
  (tool) => spawnSync(tool, ['--version']).status === 0,
);
const COMMIT = ['commit', '-q', '-b', 'base', 'top'];

function must(work: Bench, ...line: readonly string[]): string {
  const [ended] = downfoldMany(work, [line]);
  expect([line, ended?.code, ended?.stderr]).toEqual([line, 0, '']);
  return ended?.stdout ?? '';
}

/** Each line is `NAME io COMMAND` of qemu-io, or `NAME add BITMAP`. */
function make(work: Bench, lines: readonly string[]): void {
  for (const line of lines) {
    const [, name = '', what = '', rest = ''] = /^(\S+) (\S+) (.*)$/.exec(line) ?? [];
    if (what === 'io') work.must('qemu-io', '-f', 'qcow2', '-c', rest, name);
    else work.must('qemu-img', 'bitmap', '--add', '-g', '64k', name, rest);
  }
}

/** base <- mid <- top: what their bitmaps say is less than what they hold. */
function chainIn(work: Bench, { baseSize = '8M', mid = 'mid add b' } = {}): void {
  const create = (name: string, size: string, ...over: readonly string[]): string =>
    work.must('qemu-img', 'create', '-q', '-f', 'qcow2', ...over, name, size);
  create('base', baseSize);
  create('mid', baseSize, '-b', 'base', '-F', 'qcow2');
  create('top', '8M', '-b', 'mid', '-F', 'qcow2');
  make(work, [
    'base io write -P 1 0 2M',
    'base add b',
    'base add own',
    'base io write -P 2 0 64k',
    'mid io write -P 3 1M 256k',
    mid,
    'mid io write -P 4 1M 64k',
    'top io write -P 5 2M 1M',
    'top add b',
    'top io write -P 6 2M 64k',
    'top add c',
    'top io write -P 7 3M 64k',
  ]);
}

/** The dirty ranges of a bitmap in KiB, as QEMU serves them. */
function dirty(work: Bench, image: string, bitmap: string): readonly (readonly number[])[] {
  const serve = ['[', 'qemu-nbd', '-r', '-f', 'qcow2', '-B', bitmap, image, ']'];
  const map = work.must('nbdinfo', `--map=qemu:dirty-bitmap:${bitmap}`, '--json', '--', ...serve);
  return (JSON.parse(map) as { offset: number; length: number; type: number }[])
    .filter(({ type }) => type === 1)
    .map(({ offset, length }) => [offset / 1024, length / 1024]);
}

/** Flags of the bitmaps of an image, as QEMU tells them. */
function flags(work: Bench, image: string): Record<string, string> {
  const info = JSON.parse(work.must('qemu-img', 'info', '--output=json', image)) as {
    'format-specific': { data: { bitmaps?: { name: string; flags: string[] }[] } };
  };
  const bitmaps = info['format-specific'].data.bitmaps ?? [];
  return Object.fromEntries(bitmaps.map((one) => [one.name, one.flags.sort().join()]));
}

/** What a commit writes into base. */
const WRITTEN = [
  [1024, 256],
  [2048, 1088],
];

describe.skipIf(!haveQemu || !haveNbd)('commit --bitmaps', () => {
  it.each(['copy-down', 'staged', 'depth-first'])(
    'merge, by %s: base says what qemu-img bitmap --merge says, and no more',
    (strategy) => {
      using work = bench();
      chainIn(work);
      work.must('sh', '-ec', 'mkdir by-qemu; cp base by-qemu/base');
      const merge = (from: string, name: string): string =>
        work.must(
          'qemu-img',
          'bitmap',
          '--merge',
          name,
          '-b',
          from,
          '-F',
          'qcow2',
          'by-qemu/base',
          name,
        );
      merge('mid', 'b');
      merge('top', 'b');
      make(work, ['by-qemu/base add c']);
      merge('top', 'c');
      must(work, ...COMMIT, '--strategy', strategy, '--bitmaps', 'merge');
      for (const name of ['b', 'c'])
        expect([name, dirty(work, 'base', name)]).toEqual([
          name,
          dirty(work, 'by-qemu/base', name),
        ]);
      expect(dirty(work, 'base', 'b')).toEqual([
        [0, 64],
        [1024, 64],
        [2048, 64],
        [3072, 64],
      ]);
      // none of the layers has it: it records
      expect(dirty(work, 'base', 'own')).toEqual([[0, 64], ...WRITTEN]);
      expect(flags(work, 'base')).toEqual({ b: 'auto', c: 'auto', own: 'auto' });
      work.must('qemu-img', 'check', '-q', 'base');
      // it records again
      work.must('qemu-io', '-f', 'qcow2', '-c', 'write 5M 64k', 'base');
      expect(dirty(work, 'base', 'b').at(-1)).toEqual([5120, 64]);
    },
  );

  it('keep, the default: those of base record what is written; drop: base has none', () => {
    using work = bench();
    chainIn(work);
    work.must('sh', '-ec', 'mkdir other; cp base mid top other');
    must(work, ...COMMIT);
    expect(flags(work, 'base')).toEqual({ b: 'auto', own: 'auto' });
    expect(dirty(work, 'base', 'b')).toEqual([[0, 64], ...WRITTEN]);
    must(work, 'commit', '-q', '--bitmaps', 'drop', '-b', 'other/base', 'other/top');
    expect(flags(work, 'other/base')).toEqual({});
    work.must('qemu-img', 'check', '-q', 'other/base');
    expect(flags(work, 'other/top')).toEqual({ b: 'auto', c: 'auto' });
  });

  it('merge: what a layer without the bitmap holds counts as changed', () => {
    using work = bench();
    chainIn(work, { mid: 'mid add x' });
    must(work, ...COMMIT, '--bitmaps', 'merge');
    expect(dirty(work, 'base', 'b')).toEqual([
      [0, 64],
      [1024, 256],
      [2048, 64],
      [3072, 64],
    ]);
    // of mid, and top, which has none, lies above it
    expect(dirty(work, 'base', 'x')).toEqual([
      [1024, 64],
      [2048, 1088],
    ]);
  });

  it('merge, into a base that grows: what is written is recorded too', () => {
    using work = bench();
    chainIn(work, { baseSize: '2M' });
    must(work, ...COMMIT, '--bitmaps', 'merge');
    // the growth itself is a change of all that is new
    const grown = [[0, 64], WRITTEN[0], [2048, 6144]];
    expect(dirty(work, 'base', 'b')).toEqual(grown);
    expect(flags(work, 'base')).toEqual({ b: 'auto', c: 'auto', own: 'auto' });
  });

  it('is told by the plan, which can be kept', () => {
    using work = bench();
    chainIn(work);
    const before = work.digest();
    const ask = (mode: string): string =>
      must(work, 'commit', '-b', 'base', '--dry-run', '--bitmaps', mode, 'top');
    const told = ask('merge');
    expect(told).toContain("Bitmap 'b' of base gets what that of mid, top says.");
    expect(told).toContain("Bitmap 'c' of base is made, and gets what that of top says.");
    expect(told).toContain("Bitmap 'own' of base records what is written.");
    expect(ask('drop')).toContain("Bitmap 'b' of base is removed.");
    expect(work.digest()).toEqual(before);
    must(work, ...COMMIT, '--bitmaps', 'merge', '--plan-out', 'plan');
    must(work, 'commit', '-q', '--plan', 'plan', 'top');
    expect(dirty(work, 'base', 'c')).toEqual([[3072, 64]]);
  });

  it('merge refuses, before anything is changed, what is inconsistent and what base cannot have', async () => {
    using work = bench();
    chainIn(work);
    const refused = (why: string, ...line: readonly string[]): void => {
      const before = work.digest();
      const [ended] = downfoldMany(work, [line]);
      expect([ended?.code, ended?.stderr]).toEqual([1, expect.stringContaining(why)]);
      expect(work.digest()).toEqual(before);
    };
    work.must('sh', '-ec', 'qemu-img convert -f qcow2 -O raw base raw; cp top on-raw');
    work.must('qemu-img', 'rebase', '-u', '-b', 'raw', '-F', 'raw', 'on-raw');
    refused('raw images have no bitmaps', 'commit', '-d', '--bitmaps', 'merge', 'on-raw');
    work.must('sh', '-ec', 'qemu-img create -q -f qcow2 -o compat=0.10 old 8M; cp top on-old');
    work.must('qemu-img', 'rebase', '-u', '-b', 'old', '-F', 'qcow2', 'on-old');
    refused('version 2', 'commit', '-d', '--bitmaps', 'merge', 'on-old');
    work.must('sh', '-ec', "printf 'write 4M 64k\\nabort\\n' | qemu-io -f qcow2 top || true");
    refused("top: its bitmap 'b' is inconsistent", ...COMMIT, '--bitmaps', 'merge');
  });

  it('a process that is killed leaves them inconsistent; one that is stopped and goes on, right', async () => {
    using work = bench();
    chainIn(work);
    make(work, ['top io write -P 8 4M 4M']);
    work.must('sh', '-ec', 'mkdir other; cp base mid top other');
    const begin = (directory: string): ReturnType<typeof start> =>
      start(
        work,
        ...['commit', '-p', '-r', '1M', '--bitmaps', 'merge'],
        ...['-b', `${directory}base`, `${directory}top`],
      );
    for (const [signal, directory] of [
      ['SIGKILL', ''],
      ['SIGINT', 'other/'],
    ] as const) {
      const job = begin(directory);
      await job.said(/[1-9]\d*\.\d\d\/100%/);
      job.kill(signal);
      await job.ended;
      const after = signal === 'SIGKILL' ? 'auto,in-use' : 'auto';
      expect(flags(work, `${directory}base`)).toEqual({ b: after, c: after, own: after });
      must(work, 'resume', '-q', `${directory}top`);
      expect(flags(work, `${directory}base`)).toEqual({ b: after, c: after, own: after });
      work.must('qemu-img', 'check', '-q', `${directory}base`);
    }
    expect(dirty(work, 'other/base', 'b')).toEqual([
      ...[
        [0, 64],
        [1024, 64],
        [2048, 64],
        [3072, 64],
      ],
      [4096, 4096],
    ]);
  });
});
