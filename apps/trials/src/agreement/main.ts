// `pnpm --filter @downfold/trials agreement [--update-docs]`: asks QEMU and Downfold about every case; the tables, with --update-docs into
// docs/hostile-images.md. Fails when a difference is not explained.
import { qemuVersion } from '../qemu-crash/operations.ts';
import { docsPage, writeBetweenMarkers } from '../tools/docs.ts';
import { pageOf, problemsOf, survey } from './survey.ts';

const all = await survey();
const command = '`pnpm --filter @downfold/trials agreement --update-docs`';
const dated = `QEMU ${await qemuVersion()}; ${new Date().toISOString().slice(0, 10)}; ${command}.`;
process.stdout.write(`${pageOf(all)}\n`);
if (process.argv.includes('--update-docs')) {
  const page = docsPage('hostile-images.md');
  await writeBetweenMarkers(page, 'agreement', pageOf(all));
  await writeBetweenMarkers(page, 'agreement-of', dated);
}
const problems = problemsOf(all);
for (const problem of problems) process.stdout.write(`${problem}\n`);
process.exitCode = problems.length > 0 ? 1 : 0;
