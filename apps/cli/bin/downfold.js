#!/usr/bin/env node
// Plain JavaScript that any Node can parse: the bundle behind it needs Node 24's syntax.
import { fileURLToPath } from 'node:url';

// without a listener SIGUSR1 opens Node's debugger to every user of this machine
process.on('SIGUSR1', () => {});

const floor = 24;
const version = process.versions.node;

if (Number.parseInt(version, 10) < floor) {
  process.stderr.write(
    `downfold: needs Node.js ${floor} or newer, and this is ${version}; see https://nodejs.org\n`,
  );
  // 1 would say of `compare` that the disks differ
  process.exitCode = process.argv[2] === 'compare' ? 2 : 1;
} else {
  // what was compiled once need not be again: 30 ms of a start. Beside the bundle, where only those write who could change it as well
  const { enableCompileCache } = await import('node:module');
  enableCompileCache(fileURLToPath(new URL('../.cache', import.meta.url)));
  await import('../dist/main.js');
}
