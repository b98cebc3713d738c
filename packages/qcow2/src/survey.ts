import { compareRefcounts, type Difference, wrongFlag } from './compare-refcounts.ts';
import { FirstProblem } from './first-problem.ts';
import { HostCounts, USE } from './host-counts.ts';
import { largestRefcount } from './refcount-codec.ts';
import { type CountOptions, countReferences, type References } from './references.ts';
import type { Qcow2State } from './state.ts';

/**
 * What a repair may change: refcounts that are too high (and, where no refcount is too low, copied flags), or all that QEMU's `-r all`
 * puts right.
 */
export type RepairScope = 'leaks' | 'all';

/** What a repair has to do. */
export interface Survey {
  /** What refers to each cluster, and so the refcount that it is to have; without the refcount structures when these are to be replaced. */
  readonly references: References;
  /** The first of what no repair puts right: entries that break the format's rules, or point where they may not. Null: there is none. */
  readonly problem: string | null;
  /** The refcount table and its blocks cannot be mended where they are. */
  readonly rebuild: boolean;
  /** There are refcounts to be raised; to be lowered. */
  readonly low: boolean;
  readonly high: boolean;
  readonly flags: FlagChanges;
  /** Clusters whose copied flags are wrong, and will be right when their refcounts are. */
  readonly healed: number;
  /** Number of the first cluster behind all that refers, is referred to or is shown. */
  readonly end: number;
}

/** Clusters whose copied flags are to be set, or taken away: each counts 1. */
export interface FlagChanges {
  readonly set: HostCounts;
  readonly take: HostCounts;
}

interface Walk {
  readonly references: References;
  readonly problem: string | null;
}

/**
 * Looks at all metadata as a check does, and decides what a repair is to do. Writes nothing.
 *
 * Where entries are wrong that no repair puts right, what they once pointed to looks like leaks: that keeps its refcounts, so that whoever
 * mends the entries by hand still finds it.
 */
export async function survey(
  state: Qcow2State,
  scope: RepairScope,
  options?: CountOptions,
): Promise<Survey> {
  const first = await walk(state, { ...options, refcounts: true });
  const { blocks, sound } = first.references;
  const plan = await decide(state, scope, { ...first, rebuild: false }, blocks, options);
  if (scope === 'leaks' || (sound && !plan.missing)) return { ...plan, rebuild: !sound };
  const second = await walk(state, { ...options, refcounts: false });
  const again = await decide(state, scope, { ...second, rebuild: true }, blocks, options);
  return { ...again, rebuild: true, end: Math.max(plan.end, again.end) };
}

async function walk(state: Qcow2State, options: CountOptions): Promise<Walk> {
  const worst = new FirstProblem();
  const references = await countReferences(state, null, worst.hear, options);
  return { references, problem: worst.message };
}

/** Compares with the refcounts in `blocks`, which are to be mended where they are, or rebuilt. `missing`: clusters are referenced that no block counts. */
async function decide(
  state: Qcow2State,
  scope: RepairScope,
  { references, problem, rebuild }: Walk & { readonly rebuild: boolean },
  blocks: Float64Array,
  options?: CountOptions,
): Promise<Omit<Survey, 'rebuild'> & { readonly missing: boolean }> {
  const { counted, overlain } = references;
  const { refcountBits, refcountsPerBlock } = state.geometry;
  const most = largestRefcount(refcountBits);
  const keep = problem !== null;
  const [flags, afterLeaks] = [flagChanges(state), flagChanges(state)];
  let [low, high, missing, healed] = [false, false, false, 0];
  const sort = (difference: Difference): void => {
    const { cluster, stored, counted, copied, shared } = difference;
    if (stored < counted && !blocks[Math.floor(cluster / refcountsPerBlock)]) missing = true;
    // there may be a million: what keeps its refcount where it is need not be known, but for tables that something else may refer to
    if (stored > counted && keep && (rebuild || references.counted.is(cluster, USE.metadata)))
      references.counted.add(cluster, stored - counted);
    const after = stored > counted ? (keep ? stored : counted) : Math.min(counted, most);
    if (after < stored) high = true;
    if (after > stored) low = true;
    if (after > stored && scope === 'leaks') return;
    if (wrongFlag(stored, difference, most) && !wrongFlag(after, difference, most)) healed++;
    // one that does not fit the width has no right flag
    if (shared && after === 1 && counted <= most) {
      flags.set.add(cluster, 1);
      if (stored > after) afterLeaks.set.add(cluster, 1);
    }
    if (copied && after > 1) flags.take.add(cluster, 1);
  };
  await compareRefcounts(state, { counted, blocks }, sort, options);
  const found = {
    references,
    problem,
    high,
    missing,
    healed,
    end: Math.max(counted.end, overlain.end),
  };
  if (scope === 'all') return { ...found, low, flags };
  // as QEMU: other flags only where refcounts are right
  return { ...found, low: false, flags: low || keep ? afterLeaks : flags };
}

function flagChanges(state: Qcow2State): FlagChanges {
  return { set: new HostCounts(state), take: new HostCounts(state) };
}
