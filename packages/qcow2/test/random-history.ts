import { type CaseContext, caseContext } from '@downfold/compliance';
import { Lab } from './crash-lab.ts';
import { prepared, put } from './scenarios.ts';

const KIB = 1024;
const SECTOR = 512;

/**
 * Random changes of a random image, some of them at once, with flushes, relinks, growth and kills in between; everything that goes with
 * a seed is in it.
 */
export async function randomHistory(seed: number): Promise<Lab> {
  const context = caseContext(seed);
  const { integer, random, bytes } = context;
  const version = random() < 0.2 ? 2 : 3;
  const extendedL2 = version === 3 && random() < 0.25;
  const clusterSize = extendedL2 ? 16 * KIB : SECTOR * 2 ** integer(4);
  const sectors = 16 + integer(80);
  const below = random() < 0.5 ? bytes(SECTOR * integer(2 * sectors)) : null;
  const disk = await prepared(
    {
      version,
      extendedL2,
      clusterSize,
      virtualSize: sectors * SECTOR,
      refcountBits: version === 2 ? 16 : 2 ** integer(7),
      backing: below === null ? null : { name: 'base.raw', format: 'raw' },
    },
    (image) => put(image, 0, SECTOR * integer(sectors)),
    (craft) => {
      const mapped = craft.mapped();
      const some = (): number[] => mapped.filter(() => random() < 0.3);
      if (version === 3 && random() < 0.3 && !extendedL2) craft.preallocateZero(some());
      else if (random() < 0.4) craft.compress(some());
      if (craft.geometry.refcountBits > 1 && random() < 0.4) craft.snapshot();
      if (random() < 0.5) craft.soil();
    },
  );
  const lab = await Lab.start(disk, { below });
  lab.growable = version === 3;
  for (let step = 0; step < 3; step++) {
    if (random() < 0.3) {
      await lab.killAfter(integer(8), () => changes(lab, context));
      await lab.takeOver();
      if (random() < 0.7) {
        lab.leaksUntil = Number.POSITIVE_INFINITY;
        await lab.image.reclaimLeaks();
        lab.leaksUntil = lab.position;
      }
    } else await changes(lab, context);
  }
  return lab;
}

async function changes(lab: Lab, context: CaseContext): Promise<void> {
  const { integer, random } = context;
  const works: Promise<void>[] = [];
  const taken: (readonly [from: number, to: number])[] = [];
  for (let count = 1 + integer(4); count > 0; count--) {
    const work = change(lab, context, taken);
    works.push(work);
    if (random() < 0.6) await Promise.allSettled([work]);
  }
  const results = await Promise.allSettled([...works, lab.flush()]);
  for (const result of results) if (result.status === 'rejected') throw result.reason;
}

/** One change of sectors that no other one under way touches, or of the header. */
async function change(
  lab: Lab,
  { integer, random }: CaseContext,
  taken: (readonly [from: number, to: number])[],
): Promise<void> {
  const { virtualSize, allocationGranularity } = lab.image.geometry;
  const kind = random();
  if (kind < 0.05 && lab.growable && !taken.some(([from]) => from < 0)) {
    taken.push([-1, 0]);
    return lab.resize(virtualSize + SECTOR * (1 + integer(32)));
  }
  if (kind < 0.1) return lab.setBacking({ name: `b${integer(1000)}`, format: 'raw' });
  if (kind < 0.2) return lab.flush();
  const unit = kind < 0.4 ? allocationGranularity : SECTOR;
  const from = integer(Math.floor(virtualSize / unit)) * unit;
  const to = Math.min(Math.floor(virtualSize / unit) * unit, from + unit * (1 + integer(8)));
  if (to <= from || taken.some(([start, end]) => from < end && start < to)) return;
  taken.push([from, to]);
  if (kind < 0.4) return lab.deallocate(from, to - from);
  if (kind < 0.6) return lab.zero(from, to - from);
  return kind < 0.7 ? lab.copy(from, to - from) : lab.write(from, to - from);
}
