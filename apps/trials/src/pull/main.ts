// `DOWNFOLD_SEED=N pnpm --filter @downfold/trials pull [FROM TO]`: streams and rebases of one seed, or of all of [FROM, TO).
import { inLanes } from '../tools/parallel.ts';
import { tryPull } from './trial.ts';

const one = process.env['DOWNFOLD_SEED'];
const [from, to] =
  one === undefined ? process.argv.slice(2).map(Number) : [Number(one), Number(one) + 1];
if (from === undefined || to === undefined) throw new Error('set DOWNFOLD_SEED, or give FROM TO');
const seeds = Array.from({ length: to - from }, (_, index) => from + index);
let failed = 0;
await inLanes(2, seeds, async (seed) => {
  try {
    await tryPull(seed);
  } catch (error) {
    failed += 1;
    process.stdout.write(`${(error as Error).message}\n`);
  }
});
process.stdout.write(`${seeds.length - failed} of ${seeds.length} right\n`);
process.exitCode = failed === 0 ? 0 : 1;
