import { join } from 'node:path';
import { currentTier } from '@downfold/compliance';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { corpus, imagePath, writeCorpus } from '../src/crafted/corpus.ts';
import { faultsOf, type Outcome } from '../src/crafted/outcome.ts';
import { probeCommand, runCorpus } from '../src/crafted/run.ts';
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
  expect(faults({ view: [], check: ['leaks'] }, {})).toBe(1);
  expect(faults({ view: [] }, { opened: ['/etc/passwd'] })).toBe(1);
  expect(faults({ view: [] }, { readMilliseconds: 251 })).toBe(1);
  expect(faults({ view: [] }, { checkMilliseconds: 251 })).toBe(1);
  expect(faults({ view: [] }, { grownBytes: (64 << 20) + 1 })).toBe(1);
});
