// `pnpm --filter @downfold/trials strategies-doc [ROUNDS]`: measures every strategy on the standard chains and writes the table into
// docs/strategies.md.
import { cpus } from 'node:os';
import { makePool } from '../kill/pool.ts';
import { docsPage, markdownTable, writeBetweenMarkers } from '../tools/docs.ts';
import { scratch } from '../tools/scratch.ts';
import { CHAINS, type StandardChain } from './chains.ts';
import { type Cost, choiceOf, measure } from './measure.ts';

const STRATEGIES = ['copy-down', 'depth-first', 'preserve', 'staged'] as const;
const HEAD = ['chain', 'strategy', 'written', 'space at the most', 'space at the end', 'time'];
const MIB = 1 << 20;

const arguments_ = process.argv.slice(2);
const rounds = Number(arguments_[0] ?? 5);
await using directory = await scratch('figures');
const rows: (readonly string[])[] = [];
const choices: (readonly string[])[] = [];
for (const chain of CHAINS) {
  const { figures, choice } = await figuresOf(chain, directory.path, rounds);
  rows.push(...figures);
  choices.push([chain.pool.name, chain.what, choice]);
}
const origin = [
  `${new Date().toISOString().slice(0, 10)}; ${cpus().length} x ${cpus()[0]?.model ?? 'unknown'}; Node ${process.version};`,
  `\`${['pnpm --filter @downfold/trials strategies-doc', ...arguments_].join(' ')}\`.`,
].join(' ');
const text = [
  markdownTable(['chain', 'is', '`auto --keep-siblings` says'], choices),
  '',
  markdownTable(HEAD, rows),
  '',
  origin,
].join('\n');
process.stdout.write(`${text}\n`);
await writeBetweenMarkers(docsPage('strategies.md'), 'strategies', text);

/** Every strategy in turn, `rounds` times; rows of the table from the medians. */
async function figuresOf(
  { pool: spec }: StandardChain,
  parent: string,
  rounds: number,
): Promise<{ readonly figures: readonly (readonly string[])[]; readonly choice: string }> {
  const pool = await makePool(spec, parent);
  const costs = new Map<string, Cost[]>(STRATEGIES.map((strategy) => [strategy, []]));
  for (let round = 0; round < rounds; round += 1)
    for (const strategy of STRATEGIES) costs.get(strategy)?.push(await measure(pool, strategy));
  const copyDown = costs.get('copy-down') as readonly Cost[];
  const figures = [...costs].map(([strategy, all]) => rowOf(spec.name, strategy, all, copyDown));
  const choice = await choiceOf(pool);
  await pool.remove();
  return { figures, choice };
}

function rowOf(
  chain: string,
  strategy: string,
  costs: readonly Cost[],
  copyDown: readonly Cost[],
): readonly string[] {
  const middle = (of: (cost: Cost) => number): number => median(costs.map(of));
  const ratios = costs.map(
    ({ milliseconds }, round) => milliseconds / (copyDown[round] as Cost).milliseconds,
  );
  return [
    chain,
    strategy,
    mebibytes(middle(({ written }) => written)),
    ...[middle(({ peak }) => peak), middle(({ after }) => after)].map(signed),
    `${median(ratios).toFixed(2)} x`,
  ];
}

function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] as number;
}

function mebibytes(bytes: number): string {
  return `${Math.round(bytes / MIB)} MiB`;
}

function signed(bytes: number): string {
  return bytes > 0 ? `+${mebibytes(bytes)}` : mebibytes(bytes);
}
