import { expect, test } from 'vitest';
import { pathFrom } from '../src/index.ts';

test.each([
  ['x', '/d/e/x'],
  ['./x', '/d/e/x'],
  ['../x', '/d/x'],
  ['./.././../x', '/x'],
  ['s//x', '/d/e/s/x'],
  ['/a/./x', '/a/x'],
  ['..x/x', '/d/e/..x/x'],
])('%s is plain text: %s', (name, path) => {
  expect(pathFrom('/d/e', name)).toBe(path);
});

test.each([
  ['link/../x', '/d/e/link/../x'],
  ['../link/../x', '/d/e/../link/../x'],
  ['link/..', '/d/e/link/..'],
  ['/a/link/../x', '/a/link/../x'],
])('%s is for the system to follow: %s', (name, path) => {
  expect(pathFrom('/d/e', name)).toBe(path);
});
