#!/usr/bin/env node
// Plain JavaScript that any Node can parse: the bundle behind it needs Node 24's syntax.

// without a listener SIGUSR1 opens Node's debugger to every user of this machine
process.on('SIGUSR1', () => {});

const floor = 24;
const version = process.versions.node;

if (Number.parseInt(version, 10) < floor) {
  process.stderr.write(
    `downfoldd: needs Node.js ${floor} or newer, and this is ${version}; see https://nodejs.org\n`,
  );
  process.exitCode = 1;
} else {
  await import('../dist/main.js');
}
