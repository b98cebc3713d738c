import { statSync, truncateSync, writeFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { must, OBJECTS, writeKeys } from './encryption-support.ts';
import { type Bench, bench, haveCryptsetup, haveQemu } from './support.ts';

const MIB = 1 << 20;
const HEADER = 2_068_480;
const NEW = ['-f', 'luks', '-o', 'key-secret=k1,iter-time=1'];
const K1 = ['--secret', 'k1'];

/** QEMU's name of a LUKS image. */
const named = (file: string): string => `driver=luks,key-secret=k1,file.filename=${file}`;

function start(): Bench {
  const work = bench();
  writeKeys(work);
  return work;
}

/** @throws Error unless QEMU sees on the disk of an image, by its name, what a raw file holds */
function shows(work: Bench, name: string, raw: string): void {
  work.must(
    'qemu-img',
    'compare',
    ...OBJECTS,
    '--image-opts',
    name,
    `driver=raw,file.filename=${raw}`,
  );
}

/** What QEMU writes as a guest. */
function write(work: Bench, name: string, ...what: readonly string[]): void {
  const commands = what.flatMap((one) => ['-c', `write ${one}`]);
  work.must('qemu-io', ...OBJECTS, '--image-opts', ...commands, name);
}

/** 3 MiB and a bit: data, a hole, zeros that are written. */
function sample(work: Bench, file = 'in.raw'): void {
  writeFileSync(work.file(file), Buffer.concat([Buffer.alloc(MIB, 'guest'), Buffer.alloc(MIB)]));
  truncateSync(work.file(file), 3 * MIB + 512);
}

/** Makes a LUKS image of in.raw. */
function encrypt(work: Bench, file: string): void {
  const formats = ['-f', 'raw', '-O', 'luks', '-o', 'iter-time=1'];
  must(work.downfold('convert', ...K1, ...formats, 'in.raw', file));
}

/** @throws Error unless cryptsetup opens an image with its passphrase, and with no other */
function judgedByCryptsetup(work: Bench, file: string): void {
  const open = ['open', '--test-passphrase', '--key-file'];
  work.must('cryptsetup', 'isLuks', '--type', 'luks1', file);
  work.must('cryptsetup', ...open, 'k1', file);
  expect(work.run('cryptsetup', ...open, 'k2', file).code).toBe(2);
}

describe.skipIf(!haveQemu)('a LUKS image', () => {
  test('is made at once, and is to QEMU and cryptsetup what it is to us', () => {
    using work = start();
    const made = must(work.downfold('create', ...OBJECTS, ...NEW, 'disk.luks', '4M'));
    expect(made).toBe("Formatting 'disk.luks', fmt=luks size=4194304 key-secret=k1 iter-time=1\n");
    const { size, blocks } = statSync(work.file('disk.luks'));
    expect([size, blocks * 512 < HEADER + MIB]).toEqual([HEADER + 4 * MIB, true]);
    for (const form of ['human', 'json']) {
      const info = ['info', '-f', 'luks', `--output=${form}`, 'disk.luks'];
      const [ours, theirs] = [must(work.downfold(...info)), work.must('qemu-img', ...info)];
      if (form === 'json') expect(JSON.parse(ours)).toEqual(JSON.parse(theirs));
      else expect(ours).toBe(theirs);
    }
    if (haveCryptsetup) judgedByCryptsetup(work, 'disk.luks');
    const map = ['map', '--output=json'];
    const theirs = work.must('qemu-img', ...map, ...OBJECTS, '--image-opts', named('disk.luks'));
    expect(JSON.parse(must(work.downfold(...map, '-f', 'luks', 'disk.luks')))).toEqual(
      JSON.parse(theirs),
    );
    const check = ['check', '--image-opts', ...OBJECTS, named('disk.luks')];
    const checked = [work.downfold(...check), work.run('qemu-img', ...check)];
    for (const { code, stderr } of checked)
      expect([code, stderr]).toEqual([
        63,
        expect.stringContaining('This image format does not support checks'),
      ]);
    const measured = must(work.downfold('measure', '-O', 'luks', '--size', '4M', '--output=json'));
    expect(JSON.parse(measured)).toEqual({ required: size, 'fully-allocated': size });
  });

  test('is converted into, from, and compared, wherever it was made', () => {
    using work = start();
    sample(work);
    const luks = ['-O', 'luks', '-o', 'iter-time=1'];
    must(work.downfold('convert', ...K1, '-f', 'raw', ...luks, 'in.raw', 'ours.luks'));
    shows(work, named('ours.luks'), 'in.raw');
    must(work.downfold('convert', ...K1, '-f', 'luks', '-O', 'raw', 'ours.luks', 'out.raw'));
    work.must('cmp', 'in.raw', 'out.raw');
    const image = ['--image-opts', ...OBJECTS, named('ours.luks')];
    must(work.downfold('compare', ...image, 'driver=raw,file.filename=in.raw'));
    const cbc =
      'key-secret=k1,iter-time=1,cipher-mode=cbc,ivgen-alg=essiv,cipher-alg=aes-128,hash-alg=sha1';
    must(
      work.downfold(
        'convert',
        ...OBJECTS,
        '-f',
        'raw',
        '-O',
        'luks',
        '-o',
        cbc,
        'in.raw',
        'cbc.luks',
      ),
    );
    shows(work, named('cbc.luks'), 'in.raw');
    const told = work.must('qemu-img', 'info', '--output=json', 'cbc.luks');
    expect(JSON.parse(told)['format-specific'].data).toMatchObject({
      'cipher-alg': 'aes-128',
      'cipher-mode': 'cbc',
      'ivgen-alg': 'essiv',
      'hash-alg': 'sha1',
    });
    must(
      work.downfold(
        'dd',
        ...K1,
        '-f',
        'luks',
        '-O',
        'luks',
        'if=ours.luks',
        'of=part.luks',
        'bs=1M',
        'count=2',
      ),
    );
    work.must('sh', '-c', 'head -c 2M in.raw > part.raw');
    shows(work, named('part.luks'), 'part.raw');
  });

  test.skipIf(!haveCryptsetup)('that cryptsetup made is written and read', () => {
    using work = start();
    sample(work);
    work.must('truncate', '-s', '6M', 'theirs.luks');
    const fast = ['--pbkdf-force-iterations', '1000', '--key-file', 'k1'];
    work.must('cryptsetup', 'luksFormat', '-q', '--type', 'luks1', ...fast, 'theirs.luks');
    const info = must(work.downfold('info', '-f', 'luks', '--output=json', 'theirs.luks'));
    work.must('truncate', '-s', String(JSON.parse(info)['virtual-size']), 'in.raw');
    must(work.downfold('convert', ...K1, '-n', '-f', 'raw', '-O', 'luks', 'in.raw', 'theirs.luks'));
    shows(work, named('theirs.luks'), 'in.raw');
    write(work, named('theirs.luks'), '-P 7 5000 100k');
    must(work.downfold('convert', ...K1, '-f', 'luks', '-O', 'raw', 'theirs.luks', 'out.raw'));
    shows(work, named('theirs.luks'), 'out.raw');
    judgedByCryptsetup(work, 'theirs.luks');
  });

  test.each([1, 511, -100])('whose file is %i bytes longer is what it is to QEMU', (more) => {
    using work = start();
    sample(work);
    encrypt(work, 'd.luks');
    truncateSync(work.file('d.luks'), statSync(work.file('d.luks')).size + more);
    const image = ['--image-opts', ...OBJECTS, named('d.luks')];
    for (const told of [
      ['info', '-f', 'luks', '--output=json', 'd.luks'],
      ['map', '--output=json', ...image],
      ['measure', '-O', 'qcow2', ...image],
    ])
      expect(must(work.downfold(...told))).toBe(work.must('qemu-img', ...told));
    must(work.downfold('convert', ...image, '-O', 'raw', 'ours.raw'));
    work.must('qemu-img', 'convert', ...image, '-O', 'raw', 'theirs.raw');
    work.must('cmp', 'ours.raw', 'theirs.raw');
  });

  test('grows by zeros and shrinks', () => {
    using work = start();
    sample(work);
    encrypt(work, 'd.luks');
    must(work.downfold('resize', ...K1, '-f', 'luks', 'd.luks', '6M'));
    work.must('truncate', '-s', '6M', 'in.raw');
    shows(work, named('d.luks'), 'in.raw');
    must(work.downfold('resize', ...K1, '-f', 'luks', '--shrink', 'd.luks', '1M'));
    work.must('truncate', '-s', '1M', 'in.raw');
    shows(work, named('d.luks'), 'in.raw');
  });

  test.each(['copy-down', 'preserve'])('is a base, and is committed into by %s', (strategy) => {
    using work = start();
    sample(work);
    work.must('truncate', '-s', '4M', 'in.raw');
    encrypt(work, 'base.luks');
    for (const top of ['top.qcow2', 'active.qcow2'])
      must(
        work.downfold(
          'create',
          '-b',
          top === 'top.qcow2' ? 'base.luks' : 'top.qcow2',
          '-F',
          top === 'top.qcow2' ? 'luks' : 'qcow2',
          top,
        ),
      );
    const below = 'driver=luks,backing.key-secret=k1,backing.file.filename=base.luks';
    const over = `driver=qcow2,file.filename=top.qcow2,backing.${below}`;
    write(work, over, '-P 5 1000 200k', '-P 6 2M 1M', '-z 128k 64k');
    work.must('qemu-img', 'convert', ...OBJECTS, '--image-opts', over, '-O', 'raw', 'view.raw');
    must(work.downfold('compare', ...K1, '-F', 'raw', 'active.qcow2', 'view.raw'));
    const ends = ['-b', 'base.luks', '--top', 'top.qcow2', 'active.qcow2'];
    const refused = work.downfold('commit', '-q', '--strategy', strategy, ...ends);
    expect([refused.code, refused.stderr]).toEqual([1, expect.stringContaining("'--secret FILE'")]);
    must(work.downfold('commit', '-q', '--verify', ...K1, '--strategy', strategy, ...ends));
    shows(work, named('base.luks'), 'view.raw');
    must(work.downfold('compare', ...K1, '-F', 'raw', 'active.qcow2', 'view.raw'));
  });

  test('does not grow beneath a job', () => {
    using work = start();
    must(work.downfold('create', ...OBJECTS, ...NEW, 'base.luks', '2M'));
    must(work.downfold('create', '-b', 'base.luks', '-F', 'luks', 'top.qcow2', '4M'));
    const before = work.digest();
    const refused = work.downfold('commit', ...K1, '-q', 'top.qcow2');
    expect([refused.code, refused.stderr]).toEqual([1, expect.stringContaining('downfold resize')]);
    expect(work.digest()).toEqual(before);
    must(work.downfold('resize', ...K1, '-f', 'luks', 'base.luks', '4M'));
    must(work.downfold('commit', ...K1, '-q', 'top.qcow2'));
  });

  test('is not read, or made, without its secret', () => {
    using work = start();
    must(work.downfold('create', ...OBJECTS, ...NEW, 'd.luks', '1M'));
    const error = (...args: readonly string[]): string => {
      const { code, stderr } = work.downfold(...args);
      expect(code).not.toBe(0);
      return stderr;
    };
    const read = ['convert', '-f', 'luks', '-O', 'raw', 'd.luks', 'x'];
    expect(error(...read)).toContain("'--secret FILE'");
    expect(error(...read, '--secret', 'k2')).toContain('opens none of its key slots');
    expect(error('create', '-f', 'luks', 'x', '1M')).toContain('key-secret=ID');
    expect(error('create', ...OBJECTS, ...NEW, '-b', 'd.luks', '-F', 'luks', 'x')).toContain(
      'do not have a backing file',
    );
    expect(error('convert', '-c', ...K1, '-f', 'luks', '-O', 'luks', 'd.luks', 'x')).toContain(
      'Compression not supported',
    );
    expect(error('info', '-f', 'luks', 'k1')).toContain('is not a LUKS image');
  });
});
