import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, statSync, writeFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { downfoldMany } from './many.ts';
import { type Bench, bench, haveQemu } from './support.ts';

const MIB = 1 << 20;
const ALLOW = '--allow-data-file';

/** What top of `chainIn` shows. */
const PATTERN = [
  [1, 0, MIB / 2],
  [2, MIB / 2, MIB / 2],
  [3, MIB, MIB],
  [0, 2 * MIB, 2 * MIB],
] as const;

function must(work: Bench, ...lines: readonly (readonly string[])[]): readonly string[] {
  return downfoldMany(work, lines).map(({ code, stdout, stderr }, index) => {
    expect([lines[index], code, stderr]).toEqual([lines[index], 0, '']);
    return stdout;
  });
}

/** base, with the raw data file b.raw <- mid, with m.data <- top. QEMU wants names from the root on, or to run where they are. */
function chainIn(work: Bench): void {
  const data = (file: string): string => `data_file=${work.file(file)}`;
  const over = (name: string) => ['-b', name, '-F', 'qcow2'];
  must(
    work,
    ['create', '-q', '-o', `${data('b.raw')},data_file_raw=on`, 'base.qcow2', '4M'],
    ['create', '-q', ...over('base.qcow2'), '-o', data('m.data'), 'mid.qcow2'],
    ['create', '-q', ...over('mid.qcow2'), 'top.qcow2'],
  );
  const io = ['write -P 1 0 1M', 'write -P 2 512k 1M', 'write -P 3 1M 1M'];
  for (const [index, image] of ['base.qcow2', 'mid.qcow2', 'top.qcow2'].entries())
    work.must('qemu-io', '-f', 'qcow2', '-c', io[index] ?? '', image);
}

function showsPattern(work: Bench, image: string, format = 'qcow2'): void {
  for (const [byte, offset, length] of PATTERN) {
    const read = `read -P ${byte} ${offset} ${length}`;
    const said = work.must('qemu-io', '-f', format, '-r', '-c', read, image);
    expect([image, said]).toEqual([image, expect.not.stringContaining('verification failed')]);
  }
}

function sound(work: Bench, ...images: readonly string[]): void {
  for (const image of images) work.must('qemu-img', 'check', '-q', '-f', 'qcow2', image);
}

describe.skipIf(!haveQemu)('images with external data files', () => {
  it('are made as qemu-img makes them', () => {
    using work = bench();
    work.must('sh', '-c', 'mkdir ours theirs');
    for (const option of ['data_file_raw=on', 'data_file_raw=off']) {
      const line = (of: string) => ['create', '-f', 'qcow2', '-o', `data_file=${of}.raw,${option}`];
      work.must('sh', '-ec', `rm -f *.raw ours/* theirs/*`);
      const theirs = work.run('qemu-img', ...line('d'), 'd.qcow2', '4M');
      const told = JSON.parse(work.must('qemu-img', 'info', '--output=json', 'd.qcow2'));
      work.must('sh', '-ec', 'mv d.* theirs');
      const [ours] = downfoldMany(work, [[...line('d'), 'd.qcow2', '4M']]);
      expect([ours?.code, ours?.stdout]).toEqual([theirs.code, theirs.stdout]);
      const info = JSON.parse(work.must('qemu-img', 'info', '--output=json', 'd.qcow2'));
      expect(info['format-specific']).toEqual(told['format-specific']);
      const [json, human] = must(
        work,
        ['info', '--output', 'json', 'd.qcow2'],
        ['info', 'd.qcow2'],
      );
      expect(JSON.parse(json ?? '')).toEqual({ ...info, 'dirty-flag': false });
      expect(human?.trim()).toBe(work.must('qemu-img', 'info', 'd.qcow2').trim());
      sound(work, 'd.qcow2');
      work.must('sh', '-ec', 'rm d.*');
    }
  });

  it('are refused by name unless they are allowed, and told of all the same', () => {
    using work = bench();
    chainIn(work);
    const before = work.digest();
    const lines = [
      ['map', 'top.qcow2'],
      ['check', 'mid.qcow2'],
      ['check', '-r', 'all', 'mid.qcow2'],
      ['compare', 'top.qcow2', 'mid.qcow2'],
      ['convert', 'top.qcow2', 'x'],
      ['dd', 'if=top.qcow2', 'of=x'],
      ['measure', '-O', 'qcow2', 'top.qcow2'],
      ['commit', 'top.qcow2'],
      ['stream', 'top.qcow2'],
      ['rebase', '-b', '', 'top.qcow2'],
      ['resize', 'mid.qcow2', '5M'],
      ['amend', '-o', 'lazy_refcounts=on', 'mid.qcow2'],
      ['bitmap', '--add', 'mid.qcow2', 'b'],
      ['snapshot', '-c', 's', 'mid.qcow2'],
      ['convert', '-n', '-O', 'qcow2', 'top.qcow2', 'mid.qcow2'],
    ];
    for (const [index, { code, stderr }] of downfoldMany(work, lines).entries()) {
      expect([lines[index], code !== 0]).toEqual([lines[index], true]);
      expect(stderr).toMatch(
        /^downfold: .*mid\.qcow2: uses an external data file \('.*m\.data'\), .*; '--allow-data-file' allows it\n$/,
      );
    }
    const [info = '', chain = ''] = must(
      work,
      ['info', '--output', 'json', 'mid.qcow2'],
      ['info', '--backing-chain', '--output', 'json', 'top.qcow2'],
      ['snapshot', '-l', 'mid.qcow2'],
      ['graph', ALLOW, '.'],
    );
    expect(JSON.parse(info)['format-specific'].data).toMatchObject({
      'data-file': work.file('m.data'),
      'data-file-raw': false,
    });
    expect(JSON.parse(chain)).toHaveLength(3);
    expect(work.digest()).toEqual(before);
    // nothing of them is opened to tell of them
    work.must('rm', 'm.data', 'b.raw');
    must(work, ['info', 'mid.qcow2'], ['info', '--backing-chain', 'top.qcow2']);
  });

  it.each([
    ['depth-first', []],
    ['preserve', ['--keep-siblings']],
  ] as const)('are committed by %s, into a raw one too', (strategy, more) => {
    using work = bench();
    chainIn(work);
    const line = ['commit', ALLOW, '-q', '--strategy', strategy, '--verify', ...more];
    must(work, [...line, '-b', 'base.qcow2', 'top.qcow2']);
    showsPattern(work, 'top.qcow2');
    showsPattern(work, 'base.qcow2');
    showsPattern(work, 'b.raw', 'raw');
    sound(work, 'base.qcow2', 'mid.qcow2', 'top.qcow2');
  });

  it('are emptied, streamed into, rebased, copied into, mapped and resized', () => {
    using work = bench();
    chainIn(work);
    must(work, ['convert', ALLOW, '-O', 'qcow2', 'top.qcow2', 'copy.qcow2']);
    showsPattern(work, 'copy.qcow2');
    const maps = ['json', 'human'].map((form) => ['map', ALLOW, '--output', form, 'top.qcow2']);
    for (const [index, map] of must(work, ...maps).entries())
      expect(map).toBe(work.must('qemu-img', 'map', `--output=${maps[index]?.[3]}`, 'top.qcow2'));
    // top goes into mid, and mid into base
    must(work, ['commit', ALLOW, '-q', 'top.qcow2'], ['compare', ALLOW, 'top.qcow2', 'copy.qcow2']);
    showsPattern(work, 'mid.qcow2');
    must(work, ['stream', ALLOW, '-q', 'mid.qcow2']);
    showsPattern(work, 'mid.qcow2');
    work.must('rm', 'base.qcow2', 'b.raw');
    must(work, ['rebase', ALLOW, '-q', '-b', '', 'top.qcow2'], ['check', ALLOW, '-q', 'mid.qcow2']);
    showsPattern(work, 'top.qcow2');
    must(
      work,
      ['create', '-q', '-o', 'data_file=n.raw,data_file_raw=on', 'new.qcow2', '4M'],
      ['convert', ALLOW, '-n', '-O', 'qcow2', 'top.qcow2', 'new.qcow2'],
      ['resize', ALLOW, '-q', 'new.qcow2', '6M'],
    );
    showsPattern(work, 'n.raw', 'raw');
    showsPattern(work, 'new.qcow2');
    expect(statSync(work.file('n.raw')).size).toBe(6 * MIB);
    sound(work, 'mid.qcow2', 'top.qcow2', 'new.qcow2');
  });

  it('are refused where they cannot be, and nothing changes', () => {
    using work = bench();
    chainIn(work);
    must(work, ['create', '-q', 'alone.qcow2', '4M']);
    const before = work.digest();
    const refused = [
      [['commit', ALLOW, '-d', '--strategy', 'staged', 'mid.qcow2'], 'has an external data file'],
      [
        ['rebase', ALLOW, '-b', 'alone.qcow2', '-F', 'qcow2', 'base.qcow2'],
        'raw external data file',
      ],
      [['snapshot', ALLOW, '-c', 's', 'mid.qcow2'], 'in an image with an external data file'],
      [['convert', '-O', 'qcow2', '-o', 'data_file=x', 'alone.qcow2', 'x'], "'downfold create'"],
      [['create', '-o', 'data_file_raw=on', 'x', '1M'], 'data-file-raw requires data-file'],
      [['create', '-o', 'data_file=m.data', 'x', '1M'], 'exists already'],
      // into the data file of a layer that is read, whatever the locks say
      [['convert', '-U', ALLOW, '-O', 'raw', 'top.qcow2', 'm.data'], 'is one of the images'],
    ] as const;
    const ended = downfoldMany(
      work,
      refused.map(([line]) => line),
    );
    for (const [index, { code, stderr }] of ended.entries())
      expect([code, stderr]).toEqual([1, expect.stringContaining(refused[index]?.[1] ?? '')]);
    expect(work.digest()).toEqual(before);
  });

  it('are refused where two images have one, or it is a layer', () => {
    using work = bench();
    chainIn(work);
    work.must('sh', '-ec', 'cp mid.qcow2 twin.qcow2; cp mid.qcow2 pool.qcow2');
    work.must('qemu-img', 'rebase', '-u', '-b', 'mid.qcow2', '-F', 'qcow2', 'twin.qcow2');
    const refused = (...line: readonly string[]): void => {
      const [ended] = downfoldMany(work, [line]);
      expect(ended?.stderr).toMatch(
        /its data file is .*two images cannot keep their data in one file/,
      );
    };
    // in one chain
    refused('map', ALLOW, 'twin.qcow2');
    work.must('rm', 'twin.qcow2');
    // in the pool, by another image, or as a raw image
    refused('commit', ALLOW, '-q', '-b', 'base.qcow2', 'top.qcow2');
    work.must('rm', 'pool.qcow2');
    work.must('qemu-img', 'create', '-q', '-f', 'qcow2', '-b', 'm.data', '-F', 'raw', 'on.qcow2');
    refused('commit', ALLOW, '-q', '-b', 'base.qcow2', 'top.qcow2');
    work.must('rm', 'on.qcow2');
    must(work, ['commit', ALLOW, '-q', '-b', 'base.qcow2', 'top.qcow2']);
  });

  it('are not committed by a plan that knows another data file, or what was in it before', () => {
    using work = bench();
    chainIn(work);
    must(work, ['commit', ALLOW, '-q', '--plan-out', 'plan', '-b', 'base.qcow2', 'top.qcow2']);
    // in place: the image itself does not change
    work.must('qemu-io', '-f', 'qcow2', '-c', 'write -P 9 512k 64k', 'mid.qcow2');
    const [ended] = downfoldMany(work, [['commit', ALLOW, '--plan', 'plan', 'top.qcow2']]);
    expect(ended).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('changed since the plan'),
    });
  });

  it('are wrong where an entry does not lie where the guest has it, as to QEMU', () => {
    using work = bench();
    must(work, ['create', '-q', '-o', 'data_file=d.raw', 'd.qcow2', '4M']);
    work.must('qemu-io', '-f', 'qcow2', '-c', 'write -P 1 0 1M', 'd.qcow2');
    const bytes = readFileSync(work.file('d.qcow2'));
    const l2 = Number(bytes.readBigUInt64BE(Number(bytes.readBigUInt64BE(40))) & 0xff_ffff_fe00n);
    // the second cluster: where the fourth one lies
    bytes.writeUInt32BE(3 << 16, l2 + 8 + 4);
    writeFileSync(work.file('d.qcow2'), bytes);
    const read = ['qemu-io', '-f', 'qcow2', '-r', '-c', 'read 64k 4k', 'd.qcow2'] as const;
    expect(work.run(...read).stdout).toContain('read failed');
    const [map, check, write] = downfoldMany(work, [
      ['convert', ALLOW, 'd.qcow2', 'x'],
      ['check', ALLOW, 'd.qcow2'],
      ['resize', ALLOW, 'd.qcow2', '5M'],
    ]);
    expect([map?.code, check?.code, write?.code]).toEqual([1, 2, 1]);
    expect(check?.stderr).toContain('in the data file, not where the guest has it');
  });
});

describe.skipIf(!haveQemu)('data files and QEMU at once', () => {
  /** qemu-io with an image open, while `work` is done. */
  async function withOpen<T>(place: Bench, args: readonly string[], work: () => T): Promise<T> {
    const machine: ChildProcess = spawn('qemu-io', args, {
      cwd: place.path,
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    machine.stdin?.write('length\n');
    await once(machine.stdout as NodeJS.ReadableStream, 'data');
    try {
      return work();
    } finally {
      machine.kill('SIGKILL');
      await once(machine, 'exit');
    }
  }

  it.each([
    ['an image that has it, which is written', ['-f', 'qcow2', 'other.qcow2']],
    ['the file itself, which is written', ['-f', 'raw', 'd.raw']],
  ])('%s: neither reads nor writes it', async (_, args) => {
    using work = bench();
    must(work, ['create', '-q', '-o', 'data_file=d.raw', 'd.qcow2', '4M']);
    // another image of the same data file: only the lock of that tells
    work.must('cp', 'd.qcow2', 'other.qcow2');
    await withOpen(work, args, () => {
      for (const { code, stderr } of downfoldMany(work, [
        ['map', ALLOW, 'd.qcow2'],
        ['resize', ALLOW, 'd.qcow2', '5M'],
        ['check', '-r', 'all', ALLOW, 'd.qcow2'],
      ])) {
        expect(code).toBe(1);
        expect(stderr).toMatch(/d\.raw.* is in use: qemu-io/);
      }
      must(work, ['map', '-U', ALLOW, 'd.qcow2']);
    });
  });

  it('an image that is read may be read, and not written', async () => {
    using work = bench();
    must(work, ['create', '-q', '-o', 'data_file=d.raw', 'd.qcow2', '4M']);
    work.must('cp', 'd.qcow2', 'other.qcow2');
    await withOpen(work, ['-r', '-f', 'qcow2', 'other.qcow2'], () => {
      must(work, ['map', ALLOW, 'd.qcow2']);
      const [ended] = downfoldMany(work, [['resize', ALLOW, 'd.qcow2', '5M']]);
      expect([ended?.code, ended?.stderr]).toEqual([1, expect.stringMatching(/d\.raw.* in use/)]);
    });
  });
});
