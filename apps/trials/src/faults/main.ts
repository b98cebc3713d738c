// `pnpm --filter @downfold/trials faults STRATEGY FROM TO [MOST]`: fault loops over seeds [FROM, TO); the last line is JSON.
import { STRATEGIES, type StrategyName } from '../crash/scenario.ts';
import { type FaultFigures, faultsOf } from './loop.ts';

const [name = '', ...numbers] = process.argv.slice(2);
const [from = 1, to = 2, most = 1000] = numbers.map(Number);
const strategy = STRATEGIES.find((one) => one === name) as StrategyName | undefined;
if (strategy === undefined) throw new Error(`'${name}' is none of ${STRATEGIES.join(', ')}`);

const sum: FaultFigures = { faults: {}, failures: [] };
for (let seed = from; seed < to; seed++) {
  const { faults, failures } = await faultsOf(strategy, seed, most);
  sum.failures.push(...failures);
  for (const [operation, count] of Object.entries(faults)) {
    const key = operation as keyof FaultFigures['faults'];
    sum.faults[key] = (sum.faults[key] ?? 0) + count;
  }
}
process.stdout.write(`${JSON.stringify(sum)}\n`);
process.exitCode = sum.failures.length === 0 ? 0 : 1;
