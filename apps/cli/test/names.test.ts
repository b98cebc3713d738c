import { existsSync, lstatSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { copying } from './stopped-job.ts';
import { type Bench, BIN, bench, diskOf, type Ended, haveQemu, makeChain } from './support.ts';

const MIB = 1 << 20;

/** Mounts and loop devices are root's. */
const isRoot = process.getuid?.() === 0;
if (!isRoot) console.warn('NOT root: tests of mounts, loop devices and other users are skipped');

/** A loop device over `file`, which goes at the end; null: this machine has none to give. */
function loop(work: Bench, file: string): (Disposable & { readonly path: string }) | null {
  const { code, stdout } = work.run('losetup', '-f', '--show', file);
  if (code !== 0) return null;
  const path = stdout.trim();
  return { path, [Symbol.dispose]: () => void work.must('losetup', '-d', path) };
}

describe('a name that is as long as names can be', () => {
  const LONG = 'é'.repeat(127);

  it('is one of an image that is made, copied, read, and committed', async () => {
    using work = bench();
    await makeChain(work);
    const shown = await diskOf(work, 'active.qcow2');
    work.must('mv', 'active.qcow2', LONG);
    for (const line of [
      ['convert', '-O', 'qcow2', LONG, 'x'.repeat(255)],
      ['map', LONG],
      ['compare', LONG, 'x'.repeat(255)],
      ['create', '-b', LONG, '-F', 'qcow2', 'y'.repeat(255)],
      ['commit', '-b', 'base.qcow2', '--top', 'mid.qcow2', '--strategy', 'staged', LONG],
    ])
      expect([line, work.downfold(...line)]).toEqual([
        line,
        expect.objectContaining({ code: 0, stderr: '' }),
      ]);
    expect(await diskOf(work, LONG)).toBe(shown);
    expect(readdirSync(work.path).filter((name) => name.includes('.downfold'))).toEqual([]);
  });

  it('has a journal, by which an interrupted job is known, and goes on', async () => {
    using work = bench();
    await makeChain(work);
    const shown = await diskOf(work, 'active.qcow2');
    work.must('mv', 'active.qcow2', LONG);
    const job = await copying(work, 'commit', '-b', 'base.qcow2', '--top', 'top.qcow2', LONG);
    job.kill('SIGINT');
    expect((await job.ended).code).toBe(130);
    for (const line of [
      ['commit', LONG],
      ['resize', '--shrink', 'base.qcow2', '1M'],
    ])
      expect(work.downfold(...line).stderr).toContain(`downfold resume '${work.file(LONG)}'`);
    expect(work.downfold('resume', LONG)).toMatchObject({ code: 0 });
    expect(await diskOf(work, LONG)).toBe(shown);
    expect(readdirSync(work.path).filter((name) => name.endsWith('.downfold'))).toEqual([]);
  });
});

describe('a name that qemu-img takes for a protocol', () => {
  it.each([
    ['convert', '-O', 'raw', 'active.qcow2', 'nbd:localhost:1'],
    ['convert', '-O', 'raw', 'active.qcow2', 'json:{"driver":"null-co"}'],
    ['create', 'rbd:pool/x', '1M'],
    ['dd', 'if=active.qcow2', 'of=nbd:localhost:1'],
    ['info', 'ssh:host'],
  ])('is no file: %s %s', async (...line) => {
    using work = bench();
    await makeChain(work);
    const before = work.digest();
    const { code, stderr } = work.downfold(...line);
    expect([code, stderr]).toEqual([1, expect.stringContaining('no protocol that is known here')]);
    expect(stderr).toContain("is './");
    expect(work.digest()).toEqual(before);
  });

  it('is one that is there, or that is said to be one', async () => {
    using work = bench();
    expect(work.downfold('create', '-q', './vm:1.qcow2', '1M').code).toBe(0);
    expect(work.json('info', 'vm:1.qcow2')).toMatchObject({ 'virtual-size': MIB });
    expect(work.downfold('create', '-q', 'file:x.qcow2', '1M').code).toBe(0);
    expect(work.json('info', 'file:x.qcow2')).toMatchObject({ 'virtual-size': MIB });
    expect(existsSync(work.file('x.qcow2'))).toBe(true);
  });
});

/** `there/dir` beside `there/NAME`; `here` is where commands run, with a link to `there/dir` and a NAME of its own. */
async function linked(work: Bench): Promise<void> {
  work.must('mkdir', '-p', 'there/dir', 'x');
  work.must('ln', '-s', 'there/dir', 'link');
  await makeChain(work);
}

describe('`..` after a link leads from where the link leads, as it leads the system', () => {
  it('for what is read, and what is written', async () => {
    using work = bench();
    await linked(work);
    expect(work.downfold('create', '-q', 'link/../a.qcow2', '3M').code).toBe(0);
    expect(work.downfold('create', '-q', 'a.qcow2', '7M').code).toBe(0);
    expect(existsSync(work.file('there/a.qcow2'))).toBe(true);
    expect(work.json('info', 'link/../a.qcow2')).toMatchObject({ 'virtual-size': 3 * MIB });
    expect(work.downfold('resize', 'link/../a.qcow2', '4M').code).toBe(0);
    expect(work.json('info', 'a.qcow2')).toMatchObject({ 'virtual-size': 7 * MIB });
    const copy = work.downfold('convert', '-O', 'raw', 'active.qcow2', 'link/../copy.raw');
    expect(copy.code).toBe(0);
    expect([existsSync(work.file('copy.raw')), existsSync(work.file('there/copy.raw'))]).toEqual([
      false,
      true,
    ]);
  });

  it.skipIf(!haveQemu)(
    'for backing files, whom a commit goes into and whom it strands',
    async () => {
      using work = bench();
      work.must('sh', '-ec', 'mkdir -p sub x; ln -s ../sub x/l');
      // what the text of the name says, and what the system opens
      work.must('qemu-img', 'create', '-q', '-f', 'qcow2', 'x/base.qcow2', '1M');
      work.must('qemu-img', 'create', '-q', '-f', 'qcow2', 'base.qcow2', '1M');
      const over = ['create', '-q', '-f', 'qcow2', '-F', 'qcow2', '-b'];
      work.must('qemu-img', ...over, 'x/l/../base.qcow2', 'sib.qcow2');
      work.must('qemu-img', ...over, 'base.qcow2', 'active.qcow2');
      work.must('qemu-io', '-f', 'qcow2', '-c', 'write -q -P 7 0 64k', 'active.qcow2');
      const refused = work.downfold('commit', 'active.qcow2');
      expect([refused.code, refused.stderr]).toEqual([1, expect.stringContaining('sib.qcow2')]);
      work.must('qemu-io', '-f', 'qcow2', '-c', 'write -q -P 8 0 64k', 'sib.qcow2');
      expect(work.downfold('commit', '--invalidate-siblings', 'sib.qcow2').code).toBe(0);
      work.must('qemu-io', '-r', '-f', 'qcow2', '-c', 'read -q -P 8 0 64k', 'base.qcow2');
      work.must('qemu-io', '-r', '-f', 'qcow2', '-c', 'read -q -P 0 0 64k', 'x/base.qcow2');
    },
  );
});

it('what lies below a link is told beside the file that it leads to', async () => {
  using work = bench();
  work.must('mkdir', 'elsewhere');
  await makeChain(work);
  work.must('ln', '-s', '../active.qcow2', 'elsewhere/link');
  const told = (...names: readonly string[]) => ({ filename: names[0], below: names[1] });
  const infos = (name: string): unknown =>
    (work.json('info', '--backing-chain', name) as unknown as Record<string, string>[]).map((one) =>
      told(one['filename'] ?? '', one['full-backing-filename'] ?? ''),
    );
  const real = (name: string): string => work.file(name);
  const [first, second, ...rest] = infos('elsewhere/link') as ReturnType<typeof told>[];
  expect(first).toEqual(told('elsewhere/link', second?.filename ?? ''));
  for (const { filename } of [second, ...rest] as ReturnType<typeof told>[])
    expect([filename, existsSync(filename ?? '')]).toEqual([
      real((filename ?? '').replace(/.*\//, '')),
      true,
    ]);
  const files = (name: string): string[] =>
    work
      .downfold('map', name)
      .stdout.split('\n')
      .slice(1, -1)
      .map((row) => row.replace(/.* /, ''));
  expect(new Set(files('elsewhere/link').filter((name) => name !== 'elsewhere/link'))).toEqual(
    new Set(
      files('active.qcow2')
        .filter((name) => name !== 'active.qcow2')
        .map(real),
    ),
  );
});

it('a name that ends with a slash is one of a directory', async () => {
  using work = bench();
  await makeChain(work);
  const before = work.digest();
  for (const line of [
    ['info', 'active.qcow2/'],
    ['convert', '-O', 'raw', 'active.qcow2', 'outdir/'],
  ])
    expect(work.downfold(...line)).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('names a directory'),
    });
  expect(work.digest()).toEqual(before);
  work.must('mkdir', 'd');
  expect(work.downfold('graph', 'd/').code).toBe(0);
});

describe('a name that is not UTF-8', () => {
  const bytes = `"$(printf 'x\\377')"`;

  it.each([
    ['info', 1],
    ['create -f raw -q', 1],
    ['convert -O raw active.qcow2', 1],
    ['compare active.qcow2', 2],
    ['snapshot -c', 1],
  ])('is refused: %s', async (line, exitCode) => {
    using work = bench();
    await makeChain(work);
    // the name as Node shows it, of a file that must not be taken for it
    writeFileSync(work.file('x\ufffd'), 'other');
    const before = work.digest();
    const more = line === 'snapshot -c' ? 'active.qcow2' : line.startsWith('create') ? '1M' : '';
    const all = `exec '${process.execPath}' '${BIN}' ${line} ${bytes} ${more}`;
    const { code, stderr } = work.run('bash', '-c', all);
    expect([code, stderr]).toEqual([
      exitCode,
      expect.stringMatching(/^downfold: .*names must be UTF-8.*\n$/),
    ]);
    expect(work.digest()).toEqual(before);
  });

  it('of the directory that it runs in is refused', async () => {
    using work = bench();
    await makeChain(work);
    const inside = `mkdir ${bytes} && cd ${bytes} && exec '${process.execPath}' '${BIN}' create -q x 1M`;
    const { code, stderr } = work.run('bash', '-c', inside);
    expect([code, stderr]).toEqual([1, expect.stringContaining('names must be UTF-8')]);
  });
});

describe('a copy', () => {
  it('goes where a link leads, also when nothing is there yet', async () => {
    using work = bench();
    await makeChain(work);
    work.must('sh', '-ec', 'mkdir there; ln -s there/a b; ln -s ./b c');
    expect(work.downfold('convert', '-O', 'qcow2', 'active.qcow2', 'c').code).toBe(0);
    expect([lstatSync(work.file('c')).isSymbolicLink(), existsSync(work.file('there/a'))]).toEqual([
      true,
      true,
    ]);
    expect(await diskOf(work, 'there/a')).toBe(await diskOf(work, 'active.qcow2'));
  });

  it.skipIf(!isRoot)('is made in place of a file that something is mounted on', async () => {
    using work = bench();
    await makeChain(work);
    work.must('sh', '-ec', 'echo below > "a b"; echo above > c; mount --bind c "a b"');
    try {
      expect(work.downfold('convert', '-O', 'qcow2', 'active.qcow2', 'a b').code).toBe(0);
      expect(await diskOf(work, 'c')).toBe(await diskOf(work, 'active.qcow2'));
    } finally {
      work.must('umount', work.file('a b'));
    }
    expect(readFileSync(work.file('a b'), 'utf8')).toBe('below\n');
  });

  /** `downfold ARGS` of a user who has no rights; null: here nobody else can run it. */
  function asNobody(work: Bench): ((...words: readonly string[]) => Ended) | null {
    work.must('chmod', '755', '.');
    const user = ['--reuid=nobody', '--regid=nogroup', '--clear-groups'];
    const run = (...words: readonly string[]): Ended =>
      work.run('setpriv', ...user, process.execPath, BIN, ...words);
    if (run('-V').code === 0) return run;
    console.warn('NOT TESTED: others cannot enter the directory that this lies in');
    return null;
  }

  it.skipIf(!isRoot).each([
    ['in a directory that is not ours to change', 'chown nobody d/x'],
    ['of a file of another owner that we may write', 'chmod 777 d; chmod 666 d/x'],
    ['of a file that has a group that is not ours', 'chmod 777 d; chown nobody:root d/x'],
    ['where only the owner may give names', 'chmod 1777 d; chmod 666 d/x'],
  ])('is made in place %s', async (_, script) => {
    using work = bench();
    await makeChain(work);
    work.must('sh', '-ec', `mkdir d; echo old > d/x; ${script}; chmod 644 *2`);
    const before = lstatSync(work.file('d/x'));
    const ended = asNobody(work)?.('convert', '-O', 'raw', 'active.qcow2', 'd/x');
    if (ended === undefined) return;
    expect(ended).toMatchObject({ code: 0, stderr: '' });
    const { size, ino, uid, gid, mode } = lstatSync(work.file('d/x'));
    expect(size).toBe(8 * MIB);
    expect({ ino, uid, gid, mode }).toMatchObject({
      ino: before.ino,
      uid: before.uid,
      gid: before.gid,
      mode: before.mode,
    });
    expect(readdirSync(work.file('d'))).toEqual(['x']);
  });

  it.skipIf(!isRoot).each([
    ['convert', '-O', 'raw', 'active.qcow2', 'd/x'],
    ['dd', '-O', 'raw', 'if=active.qcow2', 'of=d/x'],
  ])('is not made over a file that is protected: %s', async (...line) => {
    using work = bench();
    await makeChain(work);
    const script =
      'mkdir -m 777 d; echo old > d/x; chown nobody:nogroup d/x; chmod 444 d/x; chmod 644 *2';
    work.must('sh', '-ec', script);
    const ended = asNobody(work)?.(...line);
    if (ended === undefined) return;
    expect(ended).toMatchObject({ code: 1, stderr: expect.stringContaining('d/x: access denied') });
    expect(readFileSync(work.file('d/x'), 'utf8')).toBe('old\n');
    expect(readdirSync(work.file('d'))).toEqual(['x']);
  });
});

describe.skipIf(!isRoot || !haveQemu)('a block device', () => {
  it('gets an image, but not over one that it holds, nor while the system uses it', async () => {
    using work = bench();
    await makeChain(work);
    work.must('truncate', '-s', '32M', 'device');
    using device = loop(work, 'device');
    if (device === null) {
      console.warn('NOT TESTED: there is no loop device to be had');
      return;
    }
    const { path } = device;
    // what was there before is in nobody's way
    work.must('dd', 'if=/dev/urandom', `of=${path}`, 'bs=1M', 'count=32', 'status=none');
    expect(work.downfold('create', '-q', path, '4M').code).toBe(0);
    work.must('qemu-io', '-f', 'qcow2', '-c', 'read -P 0 0 4M', path);
    work.must('qemu-img', 'check', '-q', path);
    for (const line of [
      ['create', path, '4M'],
      ['convert', '-O', 'qcow2', 'active.qcow2', path],
    ]) {
      const { code, stderr } = work.downfold(...line);
      expect([code, stderr]).toEqual([1, expect.stringContaining('holds a qcow2 image')]);
    }
    work.must('dd', 'if=/dev/zero', `of=${path}`, 'bs=4k', 'count=1', 'status=none');
    expect(work.downfold('convert', '-O', 'qcow2', 'active.qcow2', path).code).toBe(0);
    work.must('qemu-img', 'compare', '-q', '-F', 'qcow2', 'active.qcow2', path);
    work.must('qemu-img', 'check', '-q', path);
    expect(work.downfold('create', '-q', '-f', 'raw', path, '32M').code).toBe(0);
    expect(work.downfold('create', '-q', '-f', 'raw', path, '33M').code).toBe(1);
    work.must('sh', '-ec', `mkfs.ext4 -q -F ${path}; mkdir m; mount ${path} m`);
    const { code, stderr } = work.downfold('create', path, '4M');
    work.must('umount', path);
    expect([code, stderr]).toEqual([1, expect.stringContaining('in use by the system')]);
  });
});

describe.skipIf(!haveQemu)('the name of a new backing file', () => {
  it.each([[[]], [['-u']]])('is stored as it was said, rebased %j', async (how) => {
    using work = bench();
    await makeChain(work);
    work.must('sh', '-ec', 'mkdir d; cp top.qcow2 other.qcow2; ln -s other.qcow2 link.qcow2');
    const names = ['other.qcow2', './other.qcow2', 'd/../other.qcow2', 'link.qcow2'];
    for (const name of [...names, work.file('other.qcow2')]) {
      const line = ['rebase', ...how, '-b', name, '-F', 'qcow2', 'active.qcow2'];
      expect(work.downfold(...line).code).toBe(0);
      const { stdout } = work.run('qemu-img', 'info', '--output=json', 'active.qcow2');
      expect(JSON.parse(stdout)).toMatchObject({ 'backing-filename': name });
    }
  });
});

describe('an option as qemu-img takes it', () => {
  it.each([
    ['create', '-o', 'lazy_refcounts=yes,extended_l2=false,nocow=on', 'x', '1M'],
    ['create', '-o', 'encryption=off,extent_size_hint=1M', 'x', '1M'],
    ['create', '-f', 'raw', '-o', 'nocow=true', 'x', '1M'],
    ['create', '-o', 'help'],
    ['bitmap', '--image-opts', '--add', 'driver=qcow2,file.filename=active.qcow2', 'b'],
    ['dd', '--image-opts', 'if=driver=qcow2,file.filename=active.qcow2', 'of=x', 'count=8'],
  ])('%s %s %s', async (...line) => {
    using work = bench();
    await makeChain(work);
    expect(work.downfold(...line)).toMatchObject({ code: 0, stderr: '' });
    if (line.includes('lazy_refcounts=yes,extended_l2=false,nocow=on'))
      expect(work.json('info', 'x')).toMatchObject({
        'format-specific': { data: { 'lazy-refcounts': true, 'extended-l2': false } },
      });
  });

  it('a list of snapshots is printed quietly too', async () => {
    using work = bench();
    await makeChain(work);
    expect(work.downfold('snapshot', '-q', '-c', 'one', 'active.qcow2').stdout).toBe('');
    expect(work.downfold('snapshot', '-q', '-l', 'active.qcow2').stdout).toMatch(/^Snapshot list/);
  });
});
