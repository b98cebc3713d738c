import { posix } from 'node:path';
import type { LayerFacts, NodeId } from '@downfold/chain';
import {
  type ChainView,
  type CommitPlan,
  type CommitRequest,
  type CommitStrategy,
  type Cursor,
  commitPlan,
  emptiedCost,
  factsIn,
  headerCost,
  type ImageCost,
  type Invalidation,
  type NodeExtent,
  type PlanFacts,
  planFacts,
  type Relink,
  relinkTo,
  type Step,
  writeCost,
  writesBase,
} from '@downfold/commit';
import {
  alignDown,
  alignUp,
  type GuestRange,
  guestOffset,
  rangeBetween,
  rangeEnd,
} from '@downfold/units';
import { preserved } from './copy-down.ts';
import { Shadow, type Span } from './shadow.ts';
import { copiedBy, copyExtent, cut, epochOf, relinkStep } from './steps.ts';

/**
 * Pairwise from the bottom: the lowest layer above base is drained into base (skipping what the next one shadows), each cluster is
 * deallocated once base holds it durably, and the next layer is relinked to base before its own draining starts. Each intermediate
 * stays valid until after it was dropped, host space is given back as it goes, and what is left to do is what is still
 * allocated: a restart needs no watermark. Top is empty at the end.
 *
 * Deallocating a layer is safe only when its own reference, on the disk, names base already: else it would fall through to what
 * a drained layer below still holds. Source: facts on crash safety, 2.6.
 */
export const depthFirst: CommitStrategy = {
  name: 'depth-first',
  version: 1,
  operation: 'commit',
  keepsSiblings: false,
  summary: 'drain layer after layer into base from the bottom, giving space back as it goes',
  plan: async (request, view, options) => {
    const facts = await planFacts(request, view, options);
    const drained = [...facts.intermediates, facts.top];
    const relinks = relinksOf(facts, view);
    const invalidates = writesBase(facts) ? invalidationsOf(facts, view) : [];
    const { toBase, lifts } = await amountsOf(view, facts);
    const total = (key: 'bytes' | 'zeros'): number =>
      [toBase, ...lifts].reduce((sum, amount) => sum + amount[key], 0);
    const changed = [
      ...relinks.map(({ overlay }) => overlay),
      ...invalidates.map((one) => one.node),
    ];
    return commitPlan(depthFirst, request, view, facts, {
      writes: [facts.base, ...drained, ...facts.overlays].map(({ node }) => node),
      reads: [],
      preserves: preserved(view, facts.base, facts.intermediates, facts.overlays),
      invalidates,
      relinks,
      extraCopy: total('bytes') - facts.bytesToCopy,
      extraZero: total('zeros') - facts.bytesToZero - (facts.zeroTail?.length ?? 0),
      costs: [
        ...liftCosts(facts.base, drained, lifts),
        { node: facts.base.node, written: writeCost(facts.base, toBase), freed: 0 },
        ...drained.map(emptiedCost),
        ...changed.map(headerCost),
      ],
    });
  },
  steps,
};

/** The next layer after each one drained is relinked to base; top's overlays come last. */
function relinksOf(facts: PlanFacts, view: ChainView): readonly Relink[] {
  const nexts = [...facts.intermediates.slice(1), facts.top].filter(
    ({ node }) => view.links[node] !== facts.base.node,
  );
  return [...nexts, ...facts.overlays].map((image) => relinkTo(image, facts.base));
}

/** Who reads through base or a layer loses its meaning when the layer after it is drained. */
function invalidationsOf(facts: PlanFacts, view: ChainView): readonly Invalidation[] {
  const { base, intermediates, top } = facts;
  const drained = [...intermediates, top];
  return drained.flatMap((layer, index) => {
    const after = `${posix.basename(layer.path)} is drained into base`;
    return lostWith(view, base, drained, index).map((node) => ({ node, after }));
  });
}

/** The layer below the one at `index`, unless it is base, and whoever outside the chain reads through it. */
function lostWith(
  view: ChainView,
  base: LayerFacts,
  drained: readonly LayerFacts[],
  index: number,
): readonly NodeId[] {
  const below = drained[index - 1]?.node ?? base.node;
  const readers = view.outsiders.filter(({ node }) => attachedTo(view, node) === below);
  return [...(index === 0 ? [] : [below]), ...readers.map(({ node }) => node)];
}

/** The layer of the chain that an outsider reads through first. */
function attachedTo(view: ChainView, node: NodeId): NodeId | null {
  const chain = new Set(view.chain.map((one) => one.node));
  let at: NodeId | null = node;
  while (at !== null && !chain.has(at)) at = view.links[at] ?? null;
  return at;
}

/** What is written into one image. */
interface Amount {
  bytes: number;
  zeros: number;
  runs: number;
}

/** What goes to base, and what is lifted out of each layer into the next. */
async function amountsOf(
  view: ChainView,
  { base, intermediates, top, zeroTail }: PlanFacts,
): Promise<{ readonly toBase: Amount; readonly lifts: readonly Amount[] }> {
  const drained = [...intermediates, top];
  const toBase: Amount = { bytes: 0, zeros: 0, runs: 0 };
  const lifts: Amount[] = [];
  for (const [index, layer] of drained.entries()) {
    const next = drained[index + 1] ?? null;
    await add(toBase, movable(view, layer, next, top));
    const lift: Amount = { bytes: 0, zeros: 0, runs: 0 };
    if (next !== null) await add(lift, lifted(view, base, layer, next, top));
    lifts.push(lift);
  }
  toBase.zeros += zeroTail?.length ?? 0;
  return { toBase, lifts };
}

/** What is lifted is written into the next layer; the unit that it completes there goes to base with that one. */
function liftCosts(
  base: LayerFacts,
  drained: readonly LayerFacts[],
  lifts: readonly Amount[],
): readonly ImageCost[] {
  return drained.slice(1).flatMap((next, index) => {
    const lift = lifts[index] as Amount;
    if (lift.bytes + lift.zeros === 0) return [];
    const unit = next.geometry.allocationGranularity;
    return [
      { node: next.node, written: writeCost(next, lift), freed: 0 },
      { node: base.node, written: unit, freed: 0 },
    ];
  });
}

async function add(sum: Amount, batches: AsyncIterable<readonly NodeExtent[]>): Promise<void> {
  for await (const extents of batches)
    for (const { length, status } of extents) {
      sum.runs++;
      if (status === 'zero') sum.zeros += length;
      else sum.bytes += length;
    }
}

async function* steps(
  plan: CommitPlan,
  view: ChainView,
  cursor: Cursor | null,
): AsyncGenerator<readonly Step[], void, undefined> {
  const base = factsIn(plan, plan.request.base);
  const top = factsIn(plan, plan.request.top);
  const drained = drainedLayers(plan, plan.request);
  if (cursor?.['phase'] !== 'relink')
    for (let index = Number(cursor?.['layer'] ?? 0); index < drained.length; index++)
      yield* drain(plan, view, index, { base, top, drained });
  const own = new Set(drained.map(({ node }) => node));
  yield plan.relinks.filter(({ overlay }) => !own.has(overlay)).map(relinkStep);
}

function drainedLayers(plan: CommitPlan, { base, top }: CommitRequest): readonly LayerFacts[] {
  const chain = plan.images.slice(0, plan.chainLength);
  const at = (node: NodeId | null): number => chain.findIndex((one) => one.node === node);
  return chain.slice(at(base) + 1, at(top) + 1);
}

interface Ends {
  readonly base: LayerFacts;
  readonly top: LayerFacts;
  readonly drained: readonly LayerFacts[];
}

/** Drains one layer into base, then relinks the next one. */
async function* drain(
  plan: CommitPlan,
  view: ChainView,
  index: number,
  { base, top, drained }: Ends,
): AsyncGenerator<readonly Step[], void, undefined> {
  const layer = drained[index] as LayerFacts;
  const next = drained[index + 1] ?? null;
  const lost = lostWith(view, base, drained, index).filter((node) =>
    plan.invalidates.some((one) => one.node === node),
  );
  const cursor: Cursor = { phase: 'drain', layer: index };
  yield [
    { do: 'invalidate', nodes: index === 0 ? [base.node, ...lost] : lost },
    ...lost.map((node) => ({ do: 'retire', node }) as const),
    ...(plan.growBaseTo === null
      ? []
      : [{ do: 'grow', node: base.node, virtualSize: plan.growBaseTo } as const]),
    { do: 'checkpoint', cursor },
  ];
  // whole units of the layer: of a part nothing could be deallocated
  const epoch = Math.max(epochOf(plan), layer.geometry.allocationGranularity);
  let moved: GuestRange[] = [];
  let bytes = 0;
  for await (const extents of movable(view, layer, next, top)) {
    const list: Step[] = [];
    for (const extent of extents)
      for (const step of copyExtent(extent, base.node, epoch)) {
        if (bytes > 0 && bytes + copiedBy(step) > epoch) {
          list.push(...letGo(layer, base, moved), { do: 'checkpoint', cursor });
          moved = [];
          bytes = 0;
        }
        list.push(step);
        moved.push(step.range);
        bytes += copiedBy(step);
      }
    yield list;
  }
  const tail = next === null ? plan.zeroTail : null;
  if (tail !== null) yield [{ do: 'zero', node: base.node, range: tail }];
  yield letGo(layer, base, moved);
  if (next === null) {
    yield [
      { do: 'barrier', nodes: [base.node, layer.node] },
      { do: 'checkpoint', cursor: { phase: 'relink', complete: true } },
    ];
    return;
  }
  for await (const extents of lifted(view, base, layer, next, top))
    yield extents.flatMap((extent) => copyExtent(extent, next.node, epoch));
  const relink = plan.relinks.find(({ overlay }) => overlay === next.node);
  yield [
    { do: 'barrier', nodes: [base.node, layer.node, next.node] },
    ...(relink === undefined ? [] : [relinkStep(relink)]),
    { do: 'checkpoint', cursor: { phase: 'drain', layer: index + 1 } },
  ];
}

/** What base holds durably goes from the layer it came from: its space is given back, and base shows through. */
function letGo(layer: LayerFacts, base: LayerFacts, moved: readonly GuestRange[]): readonly Step[] {
  const own = moved.filter(({ offset }) => offset < layer.geometry.virtualSize);
  return [
    { do: 'barrier', nodes: [base.node] },
    ...own.map((range) => ({ do: 'deallocate' as const, node: layer.node, range })),
  ];
}

/**
 * What of a layer goes to base: its allocation within top's size, but for units that the next layer shadows wholly. Past the end of a
 * short layer its zeros go, where the next one lets them show.
 */
async function* movable(
  view: ChainView,
  layer: LayerFacts,
  next: LayerFacts | null,
  top: LayerFacts,
): AsyncGenerator<readonly NodeExtent[], void, undefined> {
  const end = top.geometry.virtualSize;
  const own = Math.min(end, layer.geometry.virtualSize);
  const shadow = new Shadow(view, next, 0, end);
  try {
    const range = rangeBetween(guestOffset(0), own);
    for await (const batch of view.extents(layer.node, range)) {
      const list: NodeExtent[] = [];
      for (const extent of batch) {
        if (extent.status === 'unallocated') continue;
        const open = await shadow.openIn(extent.offset, rangeEnd(extent));
        for (const [from, to] of whole(open, layer.geometry.allocationGranularity))
          list.push(cut({ ...extent, owner: layer.node }, from, to));
      }
      yield list;
    }
    for (const [from, to] of own < end ? await shadow.openIn(own, end) : [])
      yield [zeroSpan(layer.node, from, to)];
  } finally {
    await shadow.close();
  }
}

function zeroSpan(owner: NodeId, from: number, to: number): NodeExtent {
  return { ...rangeBetween(guestOffset(from), to), status: 'zero', preallocated: false, owner };
}

/** Spans widened to whole units, and joined where they meet. */
function whole(spans: readonly Span[], unit: number): readonly Span[] {
  const wide: Span[] = [];
  for (const [from, to] of spans) {
    const [start, end] = [alignDown(from, unit), alignUp(to, unit)];
    const last = wide.at(-1);
    if (last !== undefined && start <= last[1]) wide[wide.length - 1] = [last[0], end];
    else wide.push([start, end]);
  }
  return wide;
}

/** Past top's end nothing goes to base: what the next layer shows there from above base goes up into the next. */
async function* lifted(
  view: ChainView,
  base: LayerFacts,
  layer: LayerFacts,
  next: LayerFacts,
  top: LayerFacts,
): AsyncGenerator<readonly NodeExtent[], void, undefined> {
  const [start, end] = [top.geometry.virtualSize, next.geometry.virtualSize];
  if (end <= start) return;
  const shadow = new Shadow(view, next, start, end);
  const subchain = { base: base.node, top: layer.node };
  try {
    const range = rangeBetween(guestOffset(start), end);
    for await (const batch of view.extentsAbove(subchain, range)) {
      const list: NodeExtent[] = [];
      for (const extent of batch) {
        if (extent.owner === null) continue;
        for (const [from, to] of await shadow.openIn(extent.offset, rangeEnd(extent)))
          list.push(cut(extent, from, to));
      }
      yield list;
    }
  } finally {
    await shadow.close();
  }
}
