import { expect, it } from 'vitest';
import { twoDecimals } from '../src/output/bytes.ts';

it.each([
  [3.125, '3.12'],
  [0.375, '0.38'],
  [0.625, '0.62'],
  [99.875, '99.88'],
  [8.345, '8.35'],
  [1.005, '1.00'],
  [33.333333, '33.33'],
  [100, '100.00'],
  [0, '0.00'],
])('%f has two decimals as in C: %s', (value, text) => {
  expect(twoDecimals(value)).toBe(text);
});
