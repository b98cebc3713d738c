import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { findKoffi, loadKoffi } from '../src/koffi.ts';

const LIBRARY = `node_modules/@koromix/koffi-linux-${process.arch}/linux_${process.arch}`;

// koffi is optional to users; here it is installed
test('the library itself is loaded, and koffi is not', () => {
  const path = findKoffi();
  if (path === null) throw new Error('koffi is not installed: pnpm install');
  const { errno } = loadKoffi(path);
  expect(typeof errno()).toBe('number');
  const loaded = Object.keys(createRequire(path).cache);
  expect(loaded.filter((file) => file.endsWith('/koffi.node'))).toHaveLength(1);
  expect(loaded).not.toContain(path);
});

test('where it does not fit this system koffi decides', () => {
  const directory = mkdtempSync(join(tmpdir(), 'downfold-native-'));
  onTestFinished(() => rmSync(directory, { recursive: true }));
  const path = join(directory, 'index.cjs');
  writeFileSync(path, 'module.exports = { errno: () => 4711 };');
  mkdirSync(join(directory, LIBRARY), { recursive: true });
  writeFileSync(join(directory, LIBRARY, 'koffi.node'), 'of another system');
  expect(loadKoffi(path).errno()).toBe(4711);
});

test('DOWNFOLD_NATIVE=0 does without', () => {
  const source = new URL('../src/koffi.ts', import.meta.url).href;
  const script = `import('${source}').then(({ findKoffi }) => console.log(findKoffi() === null))`;
  const found = (DOWNFOLD_NATIVE: string): string =>
    execFileSync(process.execPath, ['-e', script], {
      encoding: 'utf8',
      env: { ...process.env, DOWNFOLD_NATIVE },
    }).trim();
  expect([found('0'), found('1')]).toEqual(['true', 'false']);
});
