import { writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { currentTier, secretObject } from '@downfold/compliance';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { corpus, imagePath, writeCorpus } from '../src/crafted/corpus.ts';
import { faultsOf, type Outcome } from '../src/crafted/outcome.ts';
import { probeCommand, runCorpus } from '../src/crafted/run.ts';
import { downfold } from '../src/tools/cli.ts';
import { must, run } from '../src/tools/process.ts';
import { checkByQemu, qemuIsHere, viewByQemu } from '../src/tools/qemu.ts';
import { type Scratch, scratch } from '../src/tools/scratch.ts';

// Each crafted image gets a typed error or a correct read, in under 250 ms and 64 MiB; none hangs; none opens a path
// outside its own directory.
describe('the crafted images', () => {
  let directory: Scratch;
  beforeAll(async () => {
    directory = await scratch('crafted');
    await writeCorpus(directory.path);
  });
  afterAll(() => directory[Symbol.asyncDispose]());

  test('are at least the 57 of the survey, under unique names', () => {
    expect(new Set(corpus.map((item) => item.name)).size).toBe(corpus.length);
    expect(corpus.length).toBeGreaterThanOrEqual(57);
  });

  test('are refused by a typed error or read right, within budget and roots', async () => {
    const { outcomes, faults } = await runCorpus(directory.path);
    const worst = (of: (outcome: Outcome) => number): string =>
      Math.max(...outcomes.map(of)).toFixed(0);
    process.stdout.write(
      `crafted: ${outcomes.length} images, slowest read ${worst((o) => o.readMilliseconds)} ms, ` +
        `slowest check ${worst((o) => o.checkMilliseconds)} ms, ` +
        `most memory ${worst((o) => o.grownBytes / 2 ** 20)} MiB\n`,
    );
    expect(faults).toEqual([]);
    expect(outcomes).toHaveLength(corpus.length);
  });

  const readable = corpus.filter((item) => item.qemu === 'reads' && item.expected.view);
  test.skipIf(!qemuIsHere())('read by QEMU as the corpus says, where QEMU reads them', async () => {
    for (const { name, expected } of readable) {
      if (name === 'backing_too_deep') continue;
      const view = await viewByQemu(imagePath(directory.path, name), 'qcow2');
      const wanted = Buffer.alloc(view.length);
      for (const { at, length, byte } of expected.view ?? []) wanted.fill(byte, at, at + length);
      expect(view.equals(wanted), name).toBe(true);
      if (expected.check?.[0] === 'leaks')
        expect(await checkByQemu(imagePath(directory.path, name))).toContain('leak');
    }
  });

  test.skipIf(!qemuIsHere() || currentTier() === 'quick')(
    'accepted and refused by QEMU as the corpus says',
    async () => {
      const key = join(directory.path, 'key');
      const wrong: string[] = [];
      for (const { name, qemu, secret } of corpus) {
        // what takes seconds is known to; what QEMU follows may lead anywhere
        if (qemu === 'hangs' || qemu === 'follows') continue;
        writeFileSync(key, secret ?? '');
        const file = { driver: 'file', filename: imagePath(directory.path, name) };
        const unlocked =
          secret === undefined ? {} : { encrypt: { format: 'luks', 'key-secret': 's' } };
        const node = { driver: 'qcow2', file, ...unlocked };
        const image = `json:${JSON.stringify(node)}`;
        const ended = await run(
          'qemu-io',
          ['-r', ...secretObject(key), '-c', 'read 0 512', image],
          {
            cwd: dirname(imagePath(directory.path, name)),
            timeout: 20_000,
          },
        );
        if ((ended.code === 0) !== (qemu !== 'refuses'))
          wrong.push(`${name}: ${ended.stdout}${ended.stderr}`);
      }
      expect(wrong).toEqual([]);
    },
    120_000,
  );

  // a terminal does what a name says
  test.each([
    'snapshot_name_escape',
    'bitmap_name_escape',
    'data_file_escape',
    'luks_cipher_escape',
  ])('%s: no control character reaches the terminal', async (name) => {
    const said: string[] = [];
    for (const command of ['info', 'check']) {
      const { stdout, stderr } = await downfold([command, imagePath(directory.path, name)]);
      said.push(stdout, stderr);
    }
    // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
    expect(said.filter((text) => /[\x00-\x09\x0b-\x1f\x7f]/.test(text))).toEqual([]);
    expect(said.join('').length).toBeGreaterThan(0);
  });

  // the kernel's word for it, not only our own decorator's
  test.skipIf(currentTier() === 'quick')('open nothing outside, by strace', async () => {
    if ((await run('strace', ['-V'])).code !== 0) throw new Error('strace is not installed');
    const log = join(directory.path, 'strace.log');
    const names = corpus.map((item) => item.name);
    const tracer = ['-f', '-qqq', '-e', 'trace=open,openat,openat2,connect', '-o', log];
    await must('strace', [...tracer, ...probeCommand(directory.path, names)]);
    const traced = await must('cat', [log]);
    const calls = traced.split('\n').filter((line) => !line.includes('O_PATH'));
    const own = calls.filter((line) => line.includes(directory.path));
    expect(own.length).toBeGreaterThan(corpus.length);
    for (const secret of ['/outside', '/etc/passwd', '/dev/zero', '/fat:', 'AF_INET'])
      expect(calls.filter((line) => line.includes(secret))).toEqual([]);
  });
});

test('the judge of crafted images reports every kind of fault', () => {
  const sound: Outcome = {
    name: 'x',
    refusedAt: null,
    code: null,
    message: null,
    wrongByte: null,
    verdict: 'clean',
    readMilliseconds: 1,
    checkMilliseconds: 1,
    grownBytes: 0,
    opened: ['/own/image.qcow2'],
  };
  const item = (expected: (typeof corpus)[number]['expected']): (typeof corpus)[number] => ({
    name: 'x',
    because: 'y',
    expected,
    qemu: 'reads',
    image: { length: 0, pieces: [] },
  });
  const faults = (expected: Parameters<typeof item>[0], change: Partial<Outcome>): number =>
    faultsOf(item(expected), { ...sound, ...change }, '/own').length;
  expect(faults({ view: [] }, {})).toBe(0);
  expect(faults({ codes: ['A'] }, {})).toBe(1);
  expect(faults({ codes: ['A'] }, { refusedAt: 'open', code: 'A' })).toBe(0);
  expect(faults({ codes: ['A'] }, { refusedAt: 'open', code: 'B' })).toBe(1);
  expect(faults({ codes: ['A'] }, { refusedAt: 'open', code: null })).toBe(1);
  expect(faults({ view: [] }, { wrongByte: 7 })).toBe(1);
  const late = { codes: ['A'], at: 'check' } as const;
  expect(faults(late, { refusedAt: 'check', code: 'A' })).toBe(0);
  expect(faults(late, { refusedAt: 'open', code: 'A' })).toBe(1);
  expect(faults(late, { refusedAt: 'check', code: 'A', wrongByte: 7 })).toBe(1);
  expect(faults({ ...late, view: [] }, {})).toBe(1);
  expect(faults({ view: [], check: ['leaks'] }, {})).toBe(1);
  expect(faults({ view: [] }, { opened: ['/etc/passwd'] })).toBe(1);
  expect(faults({ view: [] }, { readMilliseconds: 251 })).toBe(1);
  expect(faults({ view: [] }, { checkMilliseconds: 251 })).toBe(1);
  expect(faults({ view: [] }, { grownBytes: (64 << 20) + 1 })).toBe(1);
});
