import { closeSync, mkdtempSync, openSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { findKoffi, loadKoffi } from '@downfold/native';
import { expect, onTestFinished, test } from 'vitest';
import { callsThrough } from '../src/native.ts';

const ENOENT = 2;
const overwritten: number[] = [];

const path = findKoffi();
if (path === null) throw new Error('koffi is not installed: pnpm install');
const koffi = loadKoffi(path);
const calls = callsThrough(() => ({
  load: (library) => koffi.load(library),
  errno: () => overwritten.shift() ?? koffi.errno(),
}));

/** A file of one byte, open. */
function oneByte(): number {
  const directory = mkdtempSync(join(tmpdir(), 'downfold-errno-'));
  const path = join(directory, 'a');
  writeFileSync(path, 'x');
  const fd = openSync(path, 'r+');
  onTestFinished(() => {
    closeSync(fd);
    rmSync(directory, { recursive: true });
  });
  return fd;
}

const NOT_OPEN = 9999;

// seen once: a conversion failed with ENOENT in lseek
test('an error number that the engine overwrites before it is read does no harm', () => {
  const fd = oneByte();
  overwritten.push(ENOENT);
  expect(calls.seek(fd, 4096, 'data')).toBeNull();
  expect(overwritten).toEqual([]);
});

test.each([
  ['lseek', () => calls.seek(NOT_OPEN, 0, 'data')],
  ['fallocate', () => calls.punchHole(NOT_OPEN, 0, 4096)],
  ['ioctl', () => calls.shareBlocks(NOT_OPEN, 0, NOT_OPEN, 0, 4096)],
  ['fcntl', () => calls.acquireLocks(NOT_OPEN, [201], [])],
  ['fcntl', () => calls.acquireLocks(NOT_OPEN, [], [201])],
  ['fcntl', () => calls.releaseLocks(NOT_OPEN, [201])],
])('the reason that %s fails for is its own', (syscall, call) => {
  overwritten.push(ENOENT);
  expect(call).toThrow(expect.objectContaining({ code: 'EBADF', syscall }));
  expect(overwritten).toEqual([]);
});
