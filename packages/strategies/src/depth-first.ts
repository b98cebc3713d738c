import { posix } from 'node:path';
import type { LayerFacts, NodeId } from '@downfold/chain';
import {
  type ChainView,
  type CommitPlan,
  type CommitRequest,
  type CommitStrategy,
  type Cursor,
  commitPlan,
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
import { alignDown, alignUp, guestOffset, rangeBetween, rangeEnd } from '@downfold/units';
import { preserved } from './copy-down.ts';
import { Shadow, type Span } from './shadow.ts';
import { copyExtent, cut, epochOf, factsOf, relinkStep } from './steps.ts';

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
    const amounts = await amountsOf(view, facts);
    const total = amounts.reduce((sum, { bytes }) => sum + bytes, 0);
    const zeros = amounts.reduce((sum, one) => sum + one.zeros, 0);
    const runs = amounts.reduce((sum, one) => sum + one.runs, 0);
    return commitPlan(depthFirst, request, view, facts, {
      writes: [facts.base, ...drained, ...facts.overlays].map(({ node }) => node),
      reads: [],
      preserves: preserved(view, facts.base, facts.intermediates, facts.overlays),
      invalidates,
      relinks,
      extraCopy: total - facts.bytesToCopy,
      extraZero: zeros - facts.bytesToZero,
      costs: [
        {
          node: facts.base.node,
          written: writeCost(facts.base, { bytes: total, zeros, runs }),
          freed: 0,
        },
        ...drained.map((image) => ({
          node: image.node,
          // tables with the entries of what is let go, refcounts, a reference and a mark
          written: 64 * image.geometry.clusterSize + Math.ceil(image.allocated / 1024),
          freed: image.allocated,
        })),
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

async function amountsOf(
  view: ChainView,
  facts: PlanFacts,
): Promise<readonly { bytes: number; zeros: number; runs: number }[]> {
  const drained = [...facts.intermediates, facts.top];
  const amounts: { bytes: number; zeros: number; runs: number }[] = [];
  for (const [index, layer] of drained.entries()) {
    const sum = { bytes: 0, zeros: 0, runs: 0 };
    for await (const extents of movable(view, layer, drained[index + 1] ?? null, facts.top))
      for (const { length, status } of extents) {
        sum.runs++;
        if (status === 'zero') sum.zeros += length;
        else sum.bytes += length;
      }
    amounts.push(sum);
  }
  return amounts;
}

async function* steps(
  plan: CommitPlan,
  view: ChainView,
  cursor: Cursor | null,
): AsyncGenerator<readonly Step[], void, undefined> {
  const base = factsOf(plan, plan.request.base);
  const top = factsOf(plan, plan.request.top);
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
  let moved: NodeExtent[] = [];
  let bytes = 0;
  for await (const extents of movable(view, layer, next, top)) {
    const list: Step[] = [];
    for (const extent of extents) {
      list.push(...copyExtent(extent, base.node, epochOf(plan)));
      moved.push(extent);
      if (extent.status !== 'zero') bytes += extent.length;
    }
    yield list;
    if (bytes < epochOf(plan)) continue;
    yield [...letGo(layer, base, moved), { do: 'checkpoint', cursor }];
    moved = [];
    bytes = 0;
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
  yield* lift(view, layer, next, top);
  const relink = plan.relinks.find(({ overlay }) => overlay === next.node);
  yield [
    { do: 'barrier', nodes: [base.node, layer.node, next.node] },
    ...(relink === undefined ? [] : [relinkStep(relink)]),
    { do: 'checkpoint', cursor: { phase: 'drain', layer: index + 1 } },
  ];
}

/** What base holds durably goes from the layer it came from: its space is given back, and base shows through. */
function letGo(layer: LayerFacts, base: LayerFacts, moved: readonly NodeExtent[]): readonly Step[] {
  const own = moved.filter(({ offset }) => offset < layer.geometry.virtualSize);
  return [
    { do: 'barrier', nodes: [base.node] },
    ...own.map(({ offset, length }) => ({
      do: 'deallocate' as const,
      node: layer.node,
      range: { offset, length },
    })),
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

/** Past top's end nothing goes to base: what the next layer shows there of this one goes up into the next. */
async function* lift(
  view: ChainView,
  layer: LayerFacts,
  next: LayerFacts,
  top: LayerFacts,
): AsyncGenerator<readonly Step[], void, undefined> {
  const [start, end] = [top.geometry.virtualSize, next.geometry.virtualSize];
  if (end <= start) return;
  const own = Math.min(end, layer.geometry.virtualSize);
  const shadow = new Shadow(view, next, start, end);
  try {
    const held = own > start ? view.extents(layer.node, rangeBetween(guestOffset(start), own)) : [];
    for await (const batch of held) {
      const list: Step[] = [];
      for (const extent of batch) {
        if (extent.status === 'unallocated') continue;
        for (const [from, to] of await shadow.openIn(extent.offset, rangeEnd(extent)))
          list.push(...copyExtent(cut({ ...extent, owner: layer.node }, from, to), next.node, end));
      }
      yield list;
    }
    for (const [from, to] of own < end ? await shadow.openIn(Math.max(own, start), end) : [])
      yield [{ do: 'zero', node: next.node, range: rangeBetween(guestOffset(from), to) }];
  } finally {
    await shadow.close();
  }
}
