// `pnpm --filter @downfold/trials iotests [TEST ...] [--update-docs] [--resume]`: QEMU's own tests, with `downfold` in the place of qemu-img. Prints what passed,
// failed and does not apply, with reasons; with --update-docs into docs/iotests.md; with --resume
// goes on with a run that was broken off. Fails when a failure has no reason, or a reason no failure.

import { qemuVersion } from '../qemu-crash/operations.ts';
import { docsPage, writeBetweenMarkers } from '../tools/docs.ts';
import { stale } from './judge.ts';
import { pageOf } from './page.ts';
import { survey } from './survey.ts';

const words = process.argv.slice(2);
const { verdicts, work } = await survey({
  only: words.filter((word) => !word.startsWith('--')),
  resume: words.includes('--resume'),
});
const command = ['pnpm --filter @downfold/trials iotests', ...words].join(' ');
const text = [
  pageOf(verdicts),
  '',
  `QEMU ${await qemuVersion()}; ${new Date().toISOString().slice(0, 10)}; \`${command}\`.`,
].join('\n');
process.stdout.write(`${text}\n`);
if (words.includes('--update-docs'))
  await writeBetweenMarkers(docsPage('iotests.md'), 'iotests', text);
const unexplained = verdicts.filter(({ reason }) => reason === null);
for (const { format, test } of unexplained)
  process.stdout.write(
    `failed, and nobody has said why: ${format} ${test}: ${work}/downfold-${format}/${test}/${test}.out.bad\n`,
  );
for (const name of stale(verdicts)) process.stdout.write(`a reason, and no failure: ${name}\n`);
process.exitCode = unexplained.length + stale(verdicts).length > 0 ? 1 : 0;
