// `pnpm --filter @downfold/trials kill [KILLS] [MIB] [SEED]`: kills one commit of MIB MiB and prints figures.
// `pnpm --filter @downfold/trials kill matrix [KILLS] [SEED] [--update-docs]`: kills every job, on every file system, KILLS times
// in all; with --update-docs the table goes into docs/crash-safety.md.
import { release } from 'node:os';
import { docsPage, writeBetweenMarkers } from '../tools/docs.ts';
import { draw } from '../tools/draw.ts';
import { scratch } from '../tools/scratch.ts';
import { killMatrix, matrixTable } from './matrix.ts';
import { killRound } from './round.ts';

const [first, ...rest] = process.argv.slice(2);
const failures = first === 'matrix' ? await matrix(rest) : await round([first ?? '100', ...rest]);
process.exitCode = failures === 0 ? 0 : 1;

async function round(args: readonly string[]): Promise<number> {
  const [kills = 100, mebibytes = 512, seed = 1] = args.map(Number);
  await using directory = await scratch('kill');
  const figures = await killRound(directory.path, { kills, mebibytes, from: draw(seed) });
  process.stdout.write(`${JSON.stringify(figures, null, 1)}\n`);
  return figures.failures.length;
}

async function matrix(args: readonly string[]): Promise<number> {
  const [kills = 504, seed = 1] = args.filter((one) => /^\d+$/.test(one)).map(Number);
  const rows = await killMatrix({ kills, seed, quick: false });
  const failures = rows.flatMap((row) => row.failures);
  process.stdout.write(`${[matrixTable(rows), ...failures].join('\n')}\n`);
  if (args.includes('--update-docs')) {
    const command = ['pnpm --filter @downfold/trials kill matrix', ...args].join(' ');
    const origin = `${new Date().toISOString().slice(0, 10)}; Linux ${release()}; \`${command}\`.`;
    const text = `${matrixTable(rows)}\n\n${origin}`;
    await writeBetweenMarkers(docsPage('crash-safety.md'), 'kill', text);
  }
  return failures.length;
}
