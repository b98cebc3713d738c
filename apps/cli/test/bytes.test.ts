import { expect, it } from 'vitest';
import { parseBytes, twoDecimals } from '../src/output/bytes.ts';

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

/** What `qemu-img create -f raw` takes, and the file that comes of it; its sizes are whole sectors. */
it.each([
  ['1M', 1 << 20],
  [' 1M', 1 << 20],
  ['+1M', 1 << 20],
  ['0x10', 16],
  ['010', 10],
  ['1b', 1],
  ['1.0', 1],
  ['5.k', 5120],
  ['1.5K', 1536],
  ['0.4k', 410],
  ['1.0001k', 1024],
  ['1.0005k', 1025],
  ['0.0001k', 0],
  ['1.999999999999k', 2048],
  ['7P', 7 * 2 ** 50],
])('%j are %i bytes', (text, bytes) => {
  expect(parseBytes(text, 'image size')).toBe(bytes);
});

it.each([
  '',
  '-',
  '-1',
  '+',
  '+ 1',
  '++1',
  '1.5',
  '1.5b',
  '1M ',
  '1kb',
  '.5k',
  '1e3',
  '1,5k',
  '0x',
  '0x1.8k',
  'inf',
])('%j are no bytes', (text) => {
  expect(() => parseBytes(text, 'image size')).toThrow(/Invalid image size/);
});
