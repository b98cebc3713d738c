import type { LayerFacts, NodeId } from '@downfold/chain';
import {
  type ChainView,
  type CommitPlan,
  type CommitStrategy,
  type Cursor,
  commitPlan,
  commonCosts,
  planFacts,
  type Step,
  writeCost,
} from '@downfold/commit';
import { type GuestRange, guestOffset, intersect, rangeBetween, rangeEnd } from '@downfold/units';
import { Shadow } from './shadow.ts';
import { copyExtent, epochOf, factsOf, relinkStep, wholeDisk } from './steps.ts';

/**
 * As copy-down, but before a part of base is overwritten, its old content is pushed into every image that reads it through base:
 * the lowest layer above it, and every other overlay of base in the pool. Nobody but base changes meaning.
 */
export const preserve: CommitStrategy = {
  name: 'preserve',
  version: 1,
  operation: 'commit',
  keepsSiblings: true,
  summary: 'as copy-down, but first save what base overwrites into everyone who reads it',
  plan: async (request, view, options) => {
    const facts = await planFacts(request, view, options);
    const readers = view.overlaysOf(facts.base.node);
    const pushes = await amountsOf(view, facts.base.node, facts.top, readers, facts.zeroTail);
    const stay = [...view.chain, ...facts.overlays, ...view.outsiders];
    const sum = (key: 'bytes' | 'zeros'): number =>
      pushes.reduce((total, one) => total + one[key], 0);
    return commitPlan(preserve, request, view, facts, {
      writes: [
        facts.base.node,
        ...readers.map(({ node }) => node),
        ...facts.relinks.map(({ overlay }) => overlay),
        ...(request.emptyTop ? [facts.top.node] : []),
      ],
      reads: [...facts.intermediates.slice(1), facts.top].map(({ node }) => node),
      preserves: stay.filter((one) => one !== facts.base).map(({ node }) => node),
      invalidates: [],
      extraCopy: sum('bytes'),
      extraZero: sum('zeros'),
      costs: [
        ...commonCosts(facts, []),
        ...readers.map((image, index) => ({
          node: image.node,
          written: writeCost(image, pushes[index] as Amount),
          freed: 0,
        })),
      ],
    });
  },
  steps,
};

interface Amount {
  readonly bytes: number;
  readonly zeros: number;
  readonly runs: number;
}

/** How much is pushed into each reader. */
async function amountsOf(
  view: ChainView,
  base: NodeId,
  top: LayerFacts,
  readers: readonly LayerFacts[],
  zeroTail: GuestRange | null,
): Promise<readonly Amount[]> {
  const sums = readers.map(() => ({ bytes: 0, zeros: 0, runs: 0 }));
  const add = async (range: GuestRange): Promise<void> => {
    for (const [index, reader] of readers.entries()) {
      const sum = sums[index] as (typeof sums)[number];
      for await (const step of pushSteps(view, base, reader, [range])) {
        sum.runs++;
        if (step.do === 'zero') sum.zeros += step.range.length;
        else sum.bytes += step.range.length;
      }
    }
  };
  for await (const batch of view.extentsAbove({ base, top: top.node }, wholeDisk(top)))
    for (const extent of batch) if (extent.owner !== null) await add(extent);
  if (zeroTail !== null) await add(zeroTail);
  return sums;
}

async function* steps(
  plan: CommitPlan,
  view: ChainView,
  cursor: Cursor | null,
): AsyncGenerator<readonly Step[], void, undefined> {
  const { base, top, emptyTop } = plan.request;
  if (base === null) return;
  const whole = wholeDisk(factsOf(plan, top));
  if (cursor?.['phase'] !== 'relink') {
    yield [
      { do: 'invalidate', nodes: [base] },
      ...(plan.growBaseTo === null
        ? []
        : [{ do: 'grow', node: base, virtualSize: plan.growBaseTo } as const]),
    ];
    yield* epochs(plan, view, Number(cursor?.['offset'] ?? 0), rangeEnd(whole));
    if (plan.zeroTail !== null)
      yield* overwrite(plan, view, [{ do: 'zero', node: base, range: plan.zeroTail }]);
    yield [
      { do: 'barrier', nodes: [base] },
      { do: 'checkpoint', cursor: { phase: 'relink', complete: true } },
    ];
  }
  yield plan.relinks.map(relinkStep);
  if (emptyTop)
    yield [
      { do: 'barrier', nodes: [base, top] },
      { do: 'deallocate', node: top, range: whole },
    ];
}

type Writing = Extract<Step, { do: 'copy' | 'zero' }>;

/** Writes of base, collected until they make an epoch. */
async function* epochs(
  plan: CommitPlan,
  view: ChainView,
  from: number,
  to: number,
): AsyncGenerator<readonly Step[], void, undefined> {
  const { base, top } = plan.request;
  if (base === null) return;
  let writes: Writing[] = [];
  let bytes = 0;
  for await (const batch of view.extentsAbove({ base, top }, rangeBetween(guestOffset(from), to)))
    for (const extent of batch)
      for (const step of copyExtent(extent, base, epochOf(plan))) {
        writes.push(step);
        bytes += step.range.length;
        if (bytes < epochOf(plan)) continue;
        yield* overwrite(plan, view, writes);
        yield [{ do: 'checkpoint', cursor: { phase: 'copy', offset: rangeEnd(step.range) } }];
        writes = [];
        bytes = 0;
      }
  yield* overwrite(plan, view, writes);
}

/** Saves what these writes of base overwrite, durably, in everyone who reads it through base; then writes. */
async function* overwrite(
  plan: CommitPlan,
  view: ChainView,
  writes: readonly Writing[],
): AsyncGenerator<readonly Step[], void, undefined> {
  if (writes.length === 0) return;
  const { base } = plan.request;
  if (base === null) return;
  const ranges = writes.map(({ range }) => range);
  const readers = view.overlaysOf(base);
  for (const reader of readers) {
    const pushes: Step[] = [];
    for await (const step of pushSteps(view, base, reader, ranges)) pushes.push(step);
    yield pushes;
  }
  yield [{ do: 'barrier', nodes: readers.map(({ node }) => node) }];
  yield writes;
}

/** Steps that give a reader what base shows in `ranges` (ascending), where the reader leaves it to base. */
async function* pushSteps(
  view: ChainView,
  base: NodeId,
  reader: LayerFacts,
  ranges: readonly GuestRange[],
): AsyncGenerator<Writing, void, undefined> {
  const [first, last] = [ranges[0], ranges.at(-1)];
  if (first === undefined || last === undefined) return;
  const shadow = new Shadow(view, reader, first.offset, rangeEnd(last));
  try {
    for (const range of ranges)
      for (const [from, to] of await shadow.openIn(range.offset, rangeEnd(range)))
        yield* contentOf(view, base, reader.node, rangeBetween(guestOffset(from), to));
  } finally {
    await shadow.close();
  }
}

/** Steps that copy what base, and what lies below it, shows in `range`. */
async function* contentOf(
  view: ChainView,
  base: NodeId,
  to: NodeId,
  range: GuestRange,
): AsyncGenerator<Writing, void, undefined> {
  for await (const batch of view.extentsAbove({ base: null, top: base }, range))
    for (const extent of batch) {
      const inside = intersect(extent, range);
      if (inside === null) continue;
      if (extent.owner === null) yield { do: 'zero', node: to, range: inside };
      else yield* copyExtent(extent, to, range.length);
    }
}
