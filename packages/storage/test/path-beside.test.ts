import { posix } from 'node:path';
import { expect, test } from 'vitest';
import { pathBeside } from '../src/index.ts';

const SUFFIX = '.suffix';

test('is the path with the suffix where the name may be as long', () => {
  expect(pathBeside('/d/x', SUFFIX)).toBe('/d/x.suffix');
  const name = 'x'.repeat(255 - SUFFIX.length);
  expect(pathBeside(`/d/${name}`, SUFFIX)).toBe(`/d/${name}.suffix`);
});

test.each(['x', 'é', '😀'])('has a name of its own for every longer one, of %s', (letter) => {
  const size = Buffer.byteLength(letter);
  const most = letter.repeat(Math.floor(255 / size) - 1);
  const names = [most + letter, most + '-'.repeat(size)];
  const beside = names.map((name) => pathBeside(`/dir/${name}`, SUFFIX));
  expect(new Set(beside).size).toBe(2);
  for (const path of beside) {
    const name = posix.basename(path);
    expect(posix.dirname(path)).toBe('/dir');
    expect(name).toMatch(new RegExp(`^(?:${letter})+~\\d+\\.suffix$`));
    expect(Buffer.byteLength(name)).toBeLessThanOrEqual(255);
  }
  expect(pathBeside('/other/x', SUFFIX)).toBe('/other/x.suffix');
});
