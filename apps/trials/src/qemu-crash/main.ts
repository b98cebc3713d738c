// `pnpm --filter @downfold/trials qemu-crash [SEEDS] [--update-docs]`: counts the crash states in which a guest reads otherwise, of
// QEMU's operations and of ours on the same chains; with --update-docs into docs/crash-safety.md.
import { docsPage, writeBetweenMarkers } from '../tools/docs.ts';
import { qemuVersion } from './operations.ts';
import { survey } from './survey.ts';
import { tableOf } from './table.ts';

const arguments_ = process.argv.slice(2);
const [count = 1] = arguments_.filter((one) => /^\d+$/.test(one)).map(Number);
const version = await qemuVersion();
const found = await survey({ seeds: Array.from({ length: count }, (_, index) => index + 1) });
const command = ['pnpm --filter @downfold/trials qemu-crash', ...arguments_].join(' ');
const text = [
  tableOf(found, version),
  '',
  `QEMU ${version}; ${count} ${count === 1 ? 'chain' : 'chains'}; ${new Date().toISOString().slice(0, 10)}; \`${command}\`.`,
].join('\n');
process.stdout.write(`${text}\n`);
if (arguments_.includes('--update-docs'))
  await writeBetweenMarkers(docsPage('crash-safety.md'), 'qemu-crash', text);
const disputed = found.qemu.reduce((sum, one) => sum + one.disputed, 0);
if (disputed > 0)
  process.stdout.write(
    `${disputed} states that our reader finds wrong and QEMU's does not were not counted\n`,
  );
process.exitCode = found.ours.every(({ bad }) => bad === 0) ? 0 : 1;
