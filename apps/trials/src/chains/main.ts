// `[DOWNFOLD_STRATEGY=NAME] DOWNFOLD_SEED=N pnpm --filter @downfold/trials chain [FROM TO]`: one seed, or all of [FROM, TO), whole list of failures.
import { inLanes } from '../tools/parallel.ts';
import { committerOf } from './committer.ts';
import { chainSpec } from './spec.ts';
import { tryChain } from './trial.ts';

const one = process.env['DOWNFOLD_SEED'];
const [from, to] =
  one === undefined ? process.argv.slice(2).map(Number) : [Number(one), Number(one) + 1];
if (from === undefined || to === undefined) throw new Error('set DOWNFOLD_SEED, or give FROM TO');
const seeds = Array.from({ length: to - from }, (_, index) => from + index);

const strategy = process.env['DOWNFOLD_STRATEGY'] ?? 'copy-down';

let failed = 0;
if (one !== undefined) process.stdout.write(`${JSON.stringify(chainSpec(Number(one)), null, 1)}\n`);
await inLanes(2, seeds, async (seed) => {
  try {
    await tryChain(seed, committerOf(seed), strategy);
  } catch (error) {
    failed += 1;
    process.stdout.write(`${(error as Error).message}\n`);
  }
});
process.stdout.write(`${seeds.length - failed} of ${seeds.length} chains right (${strategy})\n`);
process.exitCode = failed === 0 ? 0 : 1;
