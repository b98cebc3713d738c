// `pnpm --filter @downfold/trials mutants [COUNT] [SEED]`: tries mutants of valid images; its last lines are the figures.
// `DOWNFOLD_SEED=N pnpm --filter @downfold/trials mutants [NAME REASON]`: one of them, with all it met; with a name it is kept in test/corpus.
import { qemuIsHere } from '../tools/qemu.ts';
import { differFromQemu } from './against-qemu.ts';
import { campaign, tableOf } from './campaign.ts';
import { keep } from './corpus.ts';
import { judge } from './judge.ts';
import { MemoryMeter } from './meter.ts';
import { contentOf, mutantOf, toldOf } from './mutant.ts';
import { DATA } from './seed-images.ts';

const say = (line: string): boolean => process.stdout.write(`${line}\n`);
const one = process.env['DOWNFOLD_SEED'];
process.exitCode = (one === undefined ? await many() : await single(Number(one))) === 0 ? 0 : 1;

/** Resolves with the number of faults. */
async function many(): Promise<number> {
  const [count = 10_000, first = 1] = process.argv.slice(2).map(Number);
  const started = performance.now();
  const figures = await campaign({ count, first, oneIn: qemuIsHere() ? 50 : 0 }, say);
  const seconds = (performance.now() - started) / 1000;
  say(`${seconds.toFixed(0)} s, ${(count / seconds).toFixed(0)} mutants a second`);
  say(tableOf(figures));
  return figures.faults.length;
}

async function single(seed: number): Promise<number> {
  const mutant = await mutantOf(seed);
  const [name, because] = process.argv.slice(2);
  if (name !== undefined && because !== undefined) {
    const data = mutant.of.hasDataFile ? contentOf(mutant.disk, DATA) : null;
    say(`kept: ${keep(name, because, mutant.bytes, data)}`);
  }
  const judged = await judge(mutant.disk, new MemoryMeter());
  const { view, refusals, faults } = judged;
  say(toldOf(mutant));
  for (const { at, message } of refusals) say(`refused at ${at}: ${message}`);
  for (const fault of faults) say(`FAULT ${fault}`);
  const [differs = null] = view === null ? [] : await differFromQemu([{ mutant, view, refusals }]);
  if (differs !== null) say(`FAULT ${differs}`);
  return faults.length + (differs === null ? 0 : 1);
}
