// `pnpm --filter @downfold/trials kill [KILLS] [MIB] [SEED]`: kills the real command line and prints figures.
import { draw } from '../tools/draw.ts';
import { scratch } from '../tools/scratch.ts';
import { killRound } from './round.ts';

const [kills = 100, mebibytes = 512, seed = 1] = process.argv.slice(2).map(Number);
await using directory = await scratch('kill');
const figures = await killRound(directory.path, { kills, mebibytes, from: draw(seed) });
process.stdout.write(`${JSON.stringify(figures, null, 1)}\n`);
process.exitCode = figures.failures.length === 0 ? 0 : 1;
