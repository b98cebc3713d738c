import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';
import { Distribution } from '../src/metrics/distribution.ts';

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
  // in a process of its own: here the functions are not compiled as they are in the server, and numbers are boxed
  const script = fileURLToPath(new URL('./counted.ts', import.meta.url));
  const flags = ['--conditions=@downfold/source', '--disable-warning=ExperimentalWarning'];
  const { status, stdout, stderr } = spawnSync(process.execPath, [...flags, script], {
    encoding: 'utf8',
  });
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
  expect(stdout).toMatch(/^\d+$/);
  // less than a tenth of the smallest object for each
  expect(Number(stdout)).toBeLessThan(100_000);
});
