import { posix } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import type { CommitPlan, Relink } from '../plan.ts';
import { UNALLOCATED } from './cells.ts';
import type { Pool } from './pool.ts';
import { SECTOR_BYTES } from './setting.ts';
import { Violation } from './violation.ts';

/** What a plan says before anything is done. @throws Violation */
export function checkPlan(pool: Pool, plan: CommitPlan): void {
  assertPlain(plan);
  assertLists(pool, plan);
  assertPromises(pool, plan);
  assertRelinks(pool, plan);
  if (plan.request.operation === 'commit') assertCases(pool, plan);
  const sum = plan.costs.reduce((bytes, { written }) => bytes + written, 0);
  if (sum !== plan.bytesWrittenAtMost)
    throw new Violation(
      'plan/costs-are-upper-bounds',
      `bytesWrittenAtMost is ${plan.bytesWrittenAtMost}, the costs are ${sum} together`,
    );
}

function assertPlain(plan: CommitPlan): void {
  if (isDeepStrictEqual(JSON.parse(JSON.stringify(plan)), plan)) return;
  throw new Violation('plan/is-plain-json', 'the plan is another one after JSON');
}

function assertLists(pool: Pool, plan: CommitPlan): void {
  const lost = plan.invalidates.map(({ node }) => node);
  const known = new Set(plan.images.map(({ node }) => node));
  const named = [...lost, ...plan.preserves, ...plan.writes, ...plan.reads];
  const unknown = named.find((node) => !known.has(node));
  const wrong = (problem: string): Violation => new Violation('plan/names-who-is-lost', problem);
  if (unknown !== undefined) throw wrong(`${unknown} is not in plan.images`);
  const both = lost.find((node) => plan.preserves.includes(node));
  if (both !== undefined) throw wrong(`${both} is preserved and invalidated`);
  const outside = pool.nodesOf(pool.outsiders).filter((node) => lost.includes(node));
  const paths = outside.map((node) => pool.facts[pool.indexOf(node)]?.path);
  if (!isDeepStrictEqual([...plan.strands].sort(), paths.sort()))
    throw wrong(`strands ${plan.strands}, and loses ${paths} outside the chain`);
  if (plan.request.siblings === 'keep' && outside.length > 0)
    throw new Violation('plan/keeps-siblings', `${outside} would be lost`);
}

/** Top, its overlays, and all of the chain above top and below base; for `stream` and `rebase` all of the chain. */
function assertPromises(pool: Pool, plan: CommitPlan): void {
  const { chain, base, top, setting } = pool;
  const [from, to] = [chain.indexOf(base), chain.indexOf(top)];
  const commit = setting.operation === 'commit';
  const stay = isPivot(pool)
    ? chain.slice(0, from)
    : commit
      ? [...chain.slice(0, from), ...chain.slice(to), ...pool.overlaysOf(top)]
      : chain.filter((image) => image !== top || !setting.unsafe);
  for (const node of pool.nodesOf(stay))
    if (!plan.preserves.includes(node))
      throw new Violation('plan/promises-top-and-overlays', `${node} is not preserved`);
}

/** A disk in use goes over to base: top is not relinked, but superseded. */
function isPivot({ setting }: Pool): boolean {
  return setting.client !== undefined;
}

function assertRelinks(pool: Pool, plan: CommitPlan): void {
  const { base, top, setting } = pool;
  const wrong = (problem: string): Violation =>
    new Violation('plan/relinks-overlays-and-top', problem);
  for (const relink of plan.relinks) {
    const backing = relink.backing === null ? -1 : pool.indexOf(relink.backing);
    if (backing !== base) throw wrong(`${relink.overlay} is relinked to ${relink.backing}`);
    if (!leadsTo(pool, relink)) throw wrong(`${relink.overlay}: ${JSON.stringify(relink)}`);
  }
  if (isPivot(pool)) {
    if (!plan.invalidates.some(({ node }) => node === pool.nodeOf(top)))
      throw new Violation('plan/names-who-is-lost', `${pool.nodeOf(top)} will be superseded`);
    return;
  }
  const needed = setting.operation === 'commit' ? [top, ...pool.overlaysOf(top)] : [top];
  for (const image of needed) {
    const relinked = plan.relinks.some(({ overlay }) => overlay === pool.nodeOf(image));
    if (!relinked && pool.initial.link(image) !== base)
      throw wrong(`${pool.nodeOf(image)} is not relinked`);
  }
}

/** Whether the old and new reference of a relink are those of the images. */
function leadsTo(pool: Pool, { overlay, backing, from, to }: Relink): boolean {
  const image = pool.facts[pool.indexOf(overlay)];
  if (!isDeepStrictEqual(from, image?.backing)) return false;
  if (backing === null || image === undefined) return to === null;
  const target = pool.facts[pool.indexOf(backing)];
  const path = posix.resolve(posix.dirname(image.path), to?.name ?? '');
  return path === target?.path && to?.format === target.format;
}

function assertCases(pool: Pool, plan: CommitPlan): void {
  const cases = { unallocated: 0, intermediateOnly: 0, several: 0, topOnly: 0 };
  const { chain, base, top, initial } = pool;
  const between = chain.slice(chain.indexOf(base) + 1, chain.indexOf(top));
  const decides = (image: number, sector: number): boolean =>
    sector >= initial.size(image) || initial.cell(image, sector) !== UNALLOCATED;
  for (let sector = 0; sector < initial.size(top); sector++) {
    const below = between.some((image) => decides(image, sector));
    const above = initial.cell(top, sector) !== UNALLOCATED;
    const which = above
      ? below
        ? 'several'
        : 'topOnly'
      : below
        ? 'intermediateOnly'
        : 'unallocated';
    cases[which] += SECTOR_BYTES;
  }
  if (!isDeepStrictEqual(cases, plan.cases))
    throw new Violation(
      'plan/counts-the-cases',
      `counted ${JSON.stringify(plan.cases)}, there are ${JSON.stringify(cases)}`,
    );
}
