import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { median, type Scenario } from '../src/measure.ts';
import { parseOptions } from '../src/options.ts';
import { timed } from '../src/process.ts';
import { markdown, type Report, updateDocs } from '../src/report.ts';

test('the median of an even count lies between the two in the middle', () => {
  expect(median([4, 1, 3, 2])).toBe(2.5);
  expect(median([9, 1, 5])).toBe(5);
});

test('options that are not numbers are refused by name', () => {
  expect(() => parseOptions(['--pairs', 'many'])).toThrow('--pairs');
  expect(() => parseOptions(['--size', '0'])).toThrow('--size');
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

const times = (milliseconds: number): Scenario['qemu'] => [
  { milliseconds, cpuMilliseconds: 900, peakBytes: 50 << 20, noise: 0.04 },
];
const report: Report = {
  date: '2026-01-02',
  machine: 'a machine',
  versions: { node: 'v24', qemu: '7.2' },
  command: 'pnpm bench',
  pairs: 1,
  scenarios: [
    { shape: 'sequential', mebibytes: 16, downfold: times(500), qemu: times(1000), ratio: 0.5 },
  ],
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
  expect(text).toContain(
    '| 16 MiB sequential | 0.50 s   | 1.00 s            | **0.50** | 1.00      | 50 MiB                | 50 MiB |',
  );
});
