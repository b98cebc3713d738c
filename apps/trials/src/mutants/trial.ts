import { draw } from '../tools/draw.ts';
import { differFromQemu, type Sample } from './against-qemu.ts';
import { judge } from './judge.ts';
import { MemoryMeter } from './meter.ts';
import { mutantOf, toldOf } from './mutant.ts';

const meter = new MemoryMeter();

/** Some seeds to be tried in a row. */
export interface Task {
  readonly first: number;
  readonly count: number;
  /** Where the thread writes the seed it is at. */
  readonly at: Int32Array;
  /** Of how many accepted mutants one is shown to QEMU; 0: none. */
  readonly oneIn: number;
}

/** A mutant that was not treated as it must be. */
export interface Fault {
  readonly seed: number;
  readonly what: string;
}

/** What came of a task. Goes from one thread to another. */
export interface Outcome {
  /** The first seed. */
  readonly first: number;
  readonly mutants: number;
  readonly accepted: number;
  /** Shown to QEMU. */
  readonly shown: number;
  readonly faults: readonly Fault[];
  /** How often which part of the work was refused with which code. */
  readonly refusals: ReadonlyMap<string, number>;
}

export async function tryTask({ first, count, at, oneIn }: Task): Promise<Outcome> {
  let accepted = 0;
  const samples: Sample[] = [];
  const faults: Fault[] = [];
  const refusals = new Map<string, number>();
  for (let seed = first; seed < first + count; seed++) {
    Atomics.store(at, 0, seed);
    const mutant = await mutantOf(seed);
    const judged = await judge(mutant.disk, meter);
    for (const what of judged.faults) faults.push({ seed, what: `${toldOf(mutant)}: ${what}` });
    for (const { at: part, code } of judged.refusals) {
      const key = `${part}: ${code}`;
      refusals.set(key, (refusals.get(key) ?? 0) + 1);
    }
    if (!judged.accepted) continue;
    accepted++;
    const { view } = judged;
    if (oneIn === 0 || view === null || draw(seed * 13 + 5).integer(oneIn) !== 0) continue;
    samples.push({ mutant, view, refusals: judged.refusals });
  }
  for (const [index, differs] of (await differFromQemu(samples)).entries()) {
    const { mutant } = samples[index] as Sample;
    if (differs !== null) faults.push({ seed: mutant.seed, what: `${toldOf(mutant)}: ${differs}` });
  }
  return { first, mutants: count, accepted, shown: samples.length, faults, refusals };
}
