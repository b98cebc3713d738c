// `pnpm --filter @downfold/trials served round|kill [ROUNDS] [SEED] [BLOCKS]`: four writers beneath whom a real server works, in
// rounds, undisturbed or killed; prints figures.
import { tryKills } from './kill.ts';
import { type RoundOutcome, tryRound } from './round.ts';
import { sabotaged } from './sabotage.ts';

const [what = 'round', ...numbers] = process.argv.slice(2);
const sabotage = process.env['DOWNFOLD_SABOTAGE'];
const [rounds = 20, first = 1, blocks = 10_000] = numbers.map(Number);
const outcomes: RoundOutcome[] = [];
for (let seed = first; seed < first + rounds; seed++) {
  const outcome = await (what === 'kill' ? tryKills : tryRound)({
    seed,
    blocks,
    ...(sabotage === undefined ? {} : { environment: sabotaged(sabotage) }),
  });
  outcomes.push(outcome);
  const { problems, ...figures } = outcome;
  process.stdout.write(`seed ${seed}: ${JSON.stringify(figures)}\n`);
  for (const problem of problems.slice(0, 10)) process.stdout.write(`  ${problem}\n`);
}
process.exitCode = outcomes.every(({ problems }) => problems.length === 0) ? 0 : 1;
