import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { commitStages } from '../src/commit-stages.ts';
import { latencyStages } from '../src/latency-stage.ts';
import { median, type Result } from '../src/measure.ts';
import { metadataStages } from '../src/metadata-stages.ts';
import { nbdStages } from '../src/nbd-stages.ts';
import { parseOptions } from '../src/options.ts';
import { timed } from '../src/process.ts';
import { markdown, type Report, updateDocs } from '../src/report.ts';

test('the median of an even count lies between the two in the middle', () => {
  expect(median([4, 1, 3, 2])).toBe(2.5);
  expect(median([9, 1, 5])).toBe(5);
});

test('options that are not numbers are refused by name', () => {
  expect(() => parseOptions(['--pairs', 'many'])).toThrow('--pairs');
  expect(() => parseOptions(['--noise', '0'])).toThrow('--noise');
  expect(parseOptions(['--smoke']).pairs).toBe(1);
  expect(parseOptions(['--noise', '10']).noise).toBe(0.1);
});

test.skipIf(!existsSync('/usr/bin/time'))('a timed process is measured from outside', () => {
  const timing = timed(process.execPath, ['-e', 'globalThis.kept = Buffer.alloc(64 << 20, 1)']);
  expect(timing.milliseconds).toBeGreaterThan(10);
  expect(timing.peakBytes).toBeGreaterThan(64 << 20);
  expect(timing.noise).toBeGreaterThanOrEqual(0);
  expect(timing.noise).toBeLessThanOrEqual(1.1);
});

const times = (milliseconds: number): Result['theirs'] => [
  { milliseconds, cpuMilliseconds: 900, peakBytes: 50 << 20, noise: 0.04 },
];
const result = { work: 'a commit', against: 'QEMU', ours: times(500), theirs: times(1000) };
const report: Report = {
  date: '2026-01-02',
  machine: 'a machine',
  versions: { node: 'v24', qemu: '7.2' },
  command: 'pnpm bench',
  pairs: 1,
  results: [
    { ...result, goal: 0.65, ratio: 0.5 },
    { ...result, goal: 0.4, ratio: 0.5 },
  ],
  skipped: [{ work: 'a reflink', why: 'only root can mount' }],
};

test('the page gets the table between its markers and keeps the rest', () => {
  const directory = mkdtempSync(join(tmpdir(), 'downfold-bench-test-'));
  const page = join(directory, 'performance.md');
  writeFileSync(page, 'before\n<!-- bench:start -->\nearlier figures\n<!-- bench:end -->\nafter\n');
  updateDocs(page, report);
  const text = readFileSync(page, 'utf8');
  rmSync(directory, { recursive: true });
  expect(text).toContain(markdown(report));
  expect(text).toMatch(/^before\n[\s\S]*\nafter\n$/);
  expect(text).not.toContain('earlier');
  expect(text).toContain('Other processes took at most 4 % of the machine meanwhile.');
  expect(text).toMatch(
    /\| a commit \| QEMU +\| 0.50 s +\| 1.00 s \| \*\*0.50\*\* \| 0.65 +\| 1.00 +\| 50 MiB +\| 50 MiB \|/,
  );
  expect(text).toContain('0.40 (missed)');
  expect(text).toContain('Not measured: a reflink: only root can mount.');
});

test('every row has a name of its own', () => {
  const works = [commitStages, metadataStages, nbdStages, latencyStages].flatMap((stagesOf) =>
    stagesOf(false).flatMap(({ works }) => works),
  );
  expect(new Set(works).size).toBe(works.length);
});
