// `pnpm --filter @downfold/trials fuzz [SECONDS] [SEED] [RUNS] [DIRECTORY]`: mutates images whose mutants reached code that none before them reached, again and
// again; images that are not treated as they must be are kept in test/corpus, for the tests to try, or in that
// directory.
import { createHash } from 'node:crypto';
import { keep } from '../mutants/corpus.ts';
import { judge } from '../mutants/judge.ts';
import { MemoryMeter } from '../mutants/meter.ts';
import { contentOf, diskOf, type Prepared, preparedImages } from '../mutants/mutant.ts';
import { mutate, mutated } from '../mutants/mutate.ts';
import { DATA } from '../mutants/seed-images.ts';
import { draw } from '../tools/draw.ts';
import { watchCoverage } from './coverage.ts';

/** Counts above this would make each mutation of it cost more than a hundred others. Bytes. */
const LONGEST = 1 << 20;

/** An image that reached something new, and the valid one that it goes back to. */
interface Interesting {
  readonly of: Prepared;
  readonly bytes: Uint8Array;
}

const say = (line: string): boolean => process.stdout.write(`${line}\n`);
const [seconds = 60, seed = 1, runs = Number.POSITIVE_INFINITY] = process.argv
  .slice(2, 5)
  .map(Number);
const kept = process.argv[5];
const end = performance.now() + seconds * 1000;
const meter = new MemoryMeter();
const random = draw(seed);
using coverage = watchCoverage('/packages/qcow2/src/');
const pool: Interesting[] = [];
let [done, faulty] = [0, 0];

for (const of of await preparedImages())
  if (of.bytes.length <= LONGEST) await attempt({ of, bytes: of.bytes });
const [begun, valid] = [coverage.reached, pool.length];
while (done < runs + valid && performance.now() < end) {
  const parent = pool[random.integer(pool.length)];
  if (parent === undefined) throw new Error('no valid image is left');
  const mutation = mutate(parent.bytes, parent.of.places, random.integer(2 ** 31));
  await attempt({ of: parent.of, bytes: mutated(parent.bytes, mutation) });
  if (done % 1000 === 0) say(progress());
}
say(progress());
process.exitCode = faulty === 0 ? 0 : 1;

/** Judges an image; it joins the pool when it reached something new. */
async function attempt({ of, bytes }: Interesting): Promise<void> {
  const disk = diskOf(bytes, of);
  const { faults } = await judge(disk, meter);
  done++;
  if (coverage.fresh() > 0 && bytes.length <= LONGEST) pool.push({ of, bytes });
  const [fault] = faults;
  if (fault === undefined) return;
  faulty++;
  const name = `fuzzed-${createHash('sha256').update(bytes).digest('hex').slice(0, 12)}`;
  const path = keep(name, fault, bytes, of.hasDataFile ? contentOf(disk, DATA) : null, kept);
  say(`${fault}\n  kept: ${path}`);
}

function progress(): string {
  return `${done} images, ${pool.length} reached something new: ${coverage.reached} blocks, ${begun} by valid images; ${faulty} faults`;
}
