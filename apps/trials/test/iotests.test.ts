import { join } from 'node:path';
import { currentTier } from '@downfold/compliance';
import { describe, expect, it } from 'vitest';
import { judge, stale } from '../src/iotests/judge.ts';
import { keptResults } from '../src/iotests/kept.ts';
import { pageOf } from '../src/iotests/page.ts';
import { concerns } from '../src/iotests/pick.ts';
import { REASONS } from '../src/iotests/reasons.ts';
import { type Ended, howOf } from '../src/iotests/run.ts';
import { survey } from '../src/iotests/survey.ts';
import { qemuIsHere } from '../src/tools/qemu.ts';
import { scratch } from '../src/tools/scratch.ts';

// QEMU's own tests of images, with `downfold` in the place of qemu-img. They take twenty minutes, and are fetched.
describe.skipIf(!qemuIsHere() || currentTier() !== 'long')("QEMU's own tests", () => {
  it('pass, or have a reason', async () => {
    const { verdicts } = await survey({ only: [], resume: false });
    process.stdout.write(`${pageOf(verdicts)}\n`);
    expect(verdicts.filter(({ reason }) => reason === null)).toEqual([]);
    expect(stale(verdicts)).toEqual([]);
    const passed = verdicts.filter(({ verdict }) => verdict === 'passed');
    expect(passed.length).toBeGreaterThanOrEqual(115);
  });
});

const ended = (how: Ended['how'], more: Partial<Ended> = {}): Ended => ({
  test: '900',
  how,
  why: '',
  calls: 1,
  ...more,
});

describe('a test is', () => {
  it.each<[string, Ended, Ended | null, string, string | null]>([
    ['passed', ended('passed'), null, 'passed', ''],
    ['failed, without a reason', ended('failed'), ended('passed'), 'failed', null],
    [
      'not ours, when QEMU fails too',
      ended('failed'),
      ended('failed'),
      'not applicable',
      'fails with',
    ],
    [
      'not ours, when nothing was asked',
      ended('passed', { calls: 0 }),
      null,
      'not applicable',
      'asks',
    ],
    [
      'skipped',
      ended('skipped', { why: 'no disk' }),
      null,
      'not applicable',
      'skips itself: no disk',
    ],
  ])('%s', (_, ours, theirs, verdict, reason) => {
    const found = judge('qcow2', ours, theirs);
    expect(found.verdict).toBe(verdict);
    if (reason === null) expect(found.reason).toBeNull();
    else expect(found.reason).toContain(reason);
  });

  it('stale in the table of reasons, when it passes', () => {
    const [known] = REASONS;
    const test = known?.tests[0] ?? '';
    const failed = judge('qcow2', ended('failed', { test }), ended('passed', { test }));
    expect([failed.reason, stale([failed])]).toEqual([known?.reason, []]);
    expect(stale([judge('qcow2', ended('passed', { test }), null)])).toEqual([`qcow2 ${test}`]);
  });
});

it('goes on with the results of a run that was broken off, and only of the same programs', async () => {
  await using directory = await scratch('iotests');
  const path = join(directory.path, 'results');
  const one = { format: 'raw', ours: ended('passed'), theirs: null } as const;
  await (await keptResults(path, 'these', false)).add(one);
  const two = { format: 'qcow2', ours: ended('failed'), theirs: ended('passed') } as const;
  const again = await keptResults(path, 'these', true);
  expect(again.results).toEqual([one]);
  await again.add(two);
  expect((await keptResults(path, 'these', true)).results).toEqual([one, two]);
  expect((await keptResults(path, 'others', true)).results).toEqual([]);
  expect((await keptResults(path, 'others', true)).results).toEqual([]);
  await (await keptResults(path, 'others', true)).add(one);
  expect((await keptResults(path, 'others', false)).results).toEqual([]);
});

it('has one reason for a test', () => {
  const all = REASONS.flatMap(({ format, tests }) => tests.map((test) => `${format} ${test}`));
  expect(all.filter((one, at) => all.indexOf(one) !== at)).toEqual([]);
});

it.each([
  ['one of ours', '_supported_fmt qcow2\n$QEMU_IMG map', true],
  ['one of another format', '_supported_fmt vmdk\n$QEMU_IMG map', false],
  ['one that starts the emulator', '_supported_fmt qcow2\n_launch_qemu\n$QEMU_IMG map', false],
  ['one that is disabled', '# group: rw disabled\n_supported_fmt qcow2\n$QEMU_IMG map', false],
  ['one in Python', "#!/usr/bin/env python3\nsupported_fmts=['raw']\nqemu_img('map')", true],
  [
    'one that only creates, in Python',
    "#!/usr/bin/env python3\nsupported_fmts=['raw']\nqemu_img('create')",
    false,
  ],
])('finds %s by what stands in it', (_, text, found) => {
  expect(concerns(text)).toBe(found);
});

it.each([
  ['ok qcow2 001\n', 'passed'],
  ['ok qcow2 001 # SKIP\n', 'skipped'],
  ['not ok qcow2 001\n', 'failed'],
  ['', 'failed'],
] as const)("reads what QEMU's check prints: %j", (line, how) => {
  expect(howOf(`# running qcow2 001\n${line}`, 'qcow2', '001')).toBe(how);
});
