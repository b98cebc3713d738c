import { expect, it } from 'vitest';
import { Distribution } from '../src/metrics/distribution.ts';
import { ExportCounters } from '../src/metrics/export-counters.ts';

it('times fall into the first bucket that is wide enough', () => {
  const times = new Distribution();
  for (const seconds of [0, 0.0001, 0.000_11, 10, 11]) times.observe(seconds);
  expect(times.sum).toBeCloseTo(21.000_21);
  const counts = new Map(times.cumulated());
  expect([0.0001, 0.000_25, 5, 10, Number.POSITIVE_INFINITY].map((at) => counts.get(at))).toEqual([
    2, 3, 3, 4, 5,
  ]);
});

it('a request costs no memory to count', () => {
  const { answered } = new ExportCounters();
  const count = (requests: number): void => {
    for (let request = 0; request < requests; request++) answered(request % 8, 4096, null, 2);
  };
  count(100_000);
  const before = process.memoryUsage().heapUsed;
  count(100_000);
  // less than a tenth of the smallest object for each
  expect(process.memoryUsage().heapUsed - before).toBeLessThan(100_000);
});
