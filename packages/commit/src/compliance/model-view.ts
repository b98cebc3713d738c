import { type NodeId, type OwnedBatch, OwnedList } from '@downfold/chain';
import type { Allocation } from '@downfold/image';
import { type GuestRange, guestOffset, hostOffset, rangeBetween, rangeEnd } from '@downfold/units';
import type { CommitPlan } from '../plan.ts';
import type { ChainView, NodeExtent } from '../strategy.ts';
import { chainView, factsOfPlan, type ViewFacts } from '../view.ts';
import { type Cell, isPlain, RESERVED, UNALLOCATED, ZERO } from './cells.ts';
import type { Disks } from './disks.ts';
import type { Pool } from './pool.ts';
import { SECTOR_BYTES } from './setting.ts';
import { Violation } from './violation.ts';

/** What a strategy looks at while it plans: the chain, and overlays of it for those that may keep what siblings read. */
export function viewForPlan(pool: Pool, now: () => Disks, keepsSiblings: boolean): ChainView {
  const facts = pool.viewFacts();
  const open = [...facts.chain, ...facts.onto];
  if (keepsSiblings) open.push(...facts.others.map((one) => one.facts));
  return viewOf(pool, now, facts, new Set(open.map(({ node }) => node)));
}

/** What a strategy looks at while it gives its steps: the images that the engine opens for the plan. */
export function viewForSteps(pool: Pool, now: () => Disks, plan: CommitPlan): ChainView {
  const facts = factsOfPlan(plan, pool.viewFacts().can);
  const chain = plan.images.slice(0, plan.chainLength).map(({ node }) => node);
  return viewOf(pool, now, facts, new Set([...chain, ...plan.writes, ...plan.reads]));
}

function viewOf(
  pool: Pool,
  now: () => Disks,
  facts: ViewFacts,
  open: ReadonlySet<NodeId>,
): ChainView {
  const indexOf = (node: NodeId): number => {
    if (!open.has(node))
      throw new Violation('steps/only-planned-images', `looked at ${node}, which is not open`);
    return pool.indexOf(node);
  };
  const closed = (): never => {
    throw new RangeError('the model answers by itself');
  };
  return {
    ...chainView(facts, { get: closed, path: closed }),
    extents: (node, range) => {
      const image = indexOf(node);
      return batches(pool, range, (sector) => {
        const disks = now();
        if (sector >= disks.size(image))
          throw new Violation(
            'steps/within-the-disks',
            `asked for extents past the end of ${node}`,
          );
        return { ...allocationOf(pool, disks, image, sector), owner: null };
      });
    },
    extentsAbove: ({ base, top }, range) => {
      const down = pathDown(facts.links, base, top).map(indexOf);
      return batches(pool, range, (sector) => merged(pool, now(), down, sector));
    },
  };
}

/** Nodes from `top` down to `base`, exclusive. */
function pathDown(links: ChainView['links'], base: NodeId | null, top: NodeId): NodeId[] {
  const down: NodeId[] = [];
  for (let node: NodeId | null = top; node !== base; node = links[node] ?? null) {
    if (node === null) throw new Violation('plan/refuses-by-code', `${base} is not below ${top}`);
    down.push(node);
  }
  return down;
}

type Owned = Allocation & { readonly owner: NodeId | null };

/** Who of `down`, uppermost first, decides a sector; past its end an image decides. */
function merged(pool: Pool, disks: Disks, down: readonly number[], sector: number): Owned {
  for (const image of down) {
    const owner = pool.nodeOf(image);
    if (sector >= disks.size(image)) return { status: 'zero', preallocated: false, owner };
    const allocation = allocationOf(pool, disks, image, sector);
    if (allocation.status !== 'unallocated') return { ...allocation, owner };
  }
  return { status: 'unallocated', owner: null };
}

function allocationOf(pool: Pool, disks: Disks, image: number, sector: number): Allocation {
  const cell: Cell = disks.cell(image, sector);
  if (cell === UNALLOCATED) return { status: 'unallocated' };
  if (cell === ZERO || cell === RESERVED)
    return { status: 'zero', preallocated: cell === RESERVED };
  if (!isPlain(cell)) return { status: 'compressed' };
  return { status: 'data', host: hostOffset(hostSector(pool, image, sector) * SECTOR_BYTES) };
}

/** Where a sector lies in its file, in sectors. In every second image units lie in swapped pairs. */
export function hostSector(pool: Pool, image: number, sector: number): number {
  const { unit } = pool.image(image);
  if (image % 2 === 0) return 16 + sector;
  return 16 + (Math.floor(sector / unit) ^ 1) * unit + (sector % unit);
}

/** Extents of `range`, as long as they can be, in batches. */
async function* batches(
  pool: Pool,
  range: GuestRange,
  at: (sector: number) => Owned,
): AsyncGenerator<OwnedBatch<NodeId>, void, undefined> {
  const [from, to] = [range.offset / SECTOR_BYTES, rangeEnd(range) / SECTOR_BYTES];
  let batch: NodeExtent[] = [];
  for (let sector = from; sector < to; ) {
    const first = at(sector);
    let end = sector + 1;
    while (end < to && continues(first, at(end), end - sector)) end++;
    const extent = rangeBetween(guestOffset(sector * SECTOR_BYTES), end * SECTOR_BYTES);
    batch.push({ ...extent, ...first });
    sector = end;
    if (batch.length < pool.setting.batch) continue;
    yield OwnedList.ofOwned(batch);
    batch = [];
  }
  if (batch.length > 0) yield OwnedList.ofOwned(batch);
}

function continues(first: Owned, next: Owned, distance: number): boolean {
  if (first.owner !== next.owner) return false;
  if (first.status === 'data')
    return next.status === 'data' && next.host === first.host + distance * SECTOR_BYTES;
  if (first.status === 'zero')
    return next.status === 'zero' && next.preallocated === first.preallocated;
  return first.status === next.status;
}
