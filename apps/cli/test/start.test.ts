import { expect, it } from 'vitest';
import { BIN, bench } from './support.ts';

/** What takes milliseconds to load, and a commit does not use. */
const NOT_USED: readonly string[] = [
  'child_process',
  'crypto',
  'fs/promises',
  'http',
  'net',
  'perf_hooks',
  'readline',
  'tty',
  'worker_threads',
];

/** Prints the builtins that are loaded when the process ends. */
const LISTING = `process.on('exit', () => process.getBuiltinModule('fs').writeSync(1, process.moduleLoadList.join('\\n')))`;

it('a commit loads of Node what it uses', () => {
  using work = bench();
  for (const name of ['base', 'top']) {
    const below = name === 'base' ? [] : ['-b', 'base.qcow2', '-F', 'qcow2'];
    work.must(process.execPath, BIN, 'create', ...below, `${name}.qcow2`, '1M');
  }
  const hook = `--import=data:text/javascript,${encodeURIComponent(LISTING)}`;
  const args = ['commit', '-q', '-d', '-b', 'base.qcow2', 'top.qcow2'];
  const loaded = work.must(process.execPath, hook, BIN, ...args).split('\n');
  expect(loaded).toContain('NativeModule zlib');
  expect(NOT_USED.filter((name) => loaded.includes(`NativeModule ${name}`))).toEqual([]);
});
