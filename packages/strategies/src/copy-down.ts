import type { LayerFacts, OwnedExtent } from '@downfold/chain';
import {
  type ChainView,
  type CommitPlan,
  type CommitStrategy,
  type Cursor,
  planFacts,
  type Step,
  writtenAtMost,
} from '@downfold/commit';
import { guestOffset, hostOffset, rangeBetween, rangeEnd, splitRange } from '@downfold/units';

/**
 * What QEMU does, made safe: one pass from the start of the disk to its end copies what top shows above base into base; then top's
 * overlays, and top itself, are relinked to base. Top and all that read through it stay valid at every moment. Images between base and
 * top stop representing any point in time with the first write, and are marked so at the end.
 */
export const copyDown: CommitStrategy = {
  name: 'copy-down',
  version: 1,
  summary: 'copy what top shows above base into base, then relink',
  plan: async (request, view, options) => {
    const facts = await planFacts(request, view, options);
    const writes =
      facts.bytesToCopy + facts.bytesToZero > 0 ||
      facts.zeroTail !== null ||
      facts.growBaseTo !== null;
    const lost = writes ? [...facts.intermediates, ...view.stranded] : [];
    return {
      planVersion: 1,
      strategy: { name: copyDown.name, version: copyDown.version },
      request,
      images: facts.images,
      chainLength: facts.chainLength,
      preserves: preserved(view, facts.base, facts.intermediates, facts.overlays),
      invalidates: lost.map(({ node }) => ({ node, after: 'the first write to base' })),
      strands: facts.strands,
      relinks: facts.relinks,
      growBaseTo: facts.growBaseTo,
      zeroTail: facts.zeroTail,
      cases: facts.cases,
      bytesToCopy: facts.bytesToCopy,
      bytesToZero: facts.bytesToZero,
      bytesWrittenAtMost: writtenAtMost(facts),
    };
  },
  steps,
};

/** Top and all above it, overlays of top outside the chain, and what lies below base. */
function preserved(
  view: ChainView,
  base: LayerFacts,
  intermediates: readonly LayerFacts[],
  overlays: readonly LayerFacts[],
): readonly string[] {
  const stay = view.chain.filter((layer) => layer !== base && !intermediates.includes(layer));
  return [...new Set([...stay, ...overlays].map(({ node }) => node))];
}

async function* steps(
  plan: CommitPlan,
  view: ChainView,
  cursor: Cursor | null,
): AsyncGenerator<readonly Step[], void, undefined> {
  const { base, top, emptyTop } = plan.request;
  const topFacts = view.chain.find(({ node }) => node === top) as LayerFacts;
  const whole = rangeBetween(guestOffset(0), topFacts.geometry.virtualSize);
  if (cursor?.['phase'] !== 'relink') {
    if (plan.growBaseTo !== null) yield [{ do: 'grow', node: base, virtualSize: plan.growBaseTo }];
    yield* copySteps(plan, view, guestOffset(Number(cursor?.['offset'] ?? 0)), rangeEnd(whole));
    if (plan.zeroTail !== null) yield [{ do: 'zero', node: base, range: plan.zeroTail }];
    yield [
      { do: 'barrier', nodes: [base] },
      { do: 'checkpoint', cursor: { phase: 'relink' } },
    ];
  }
  yield plan.relinks.map(({ overlay, backing, to }) => ({
    do: 'relink',
    overlay,
    backing,
    reference: to,
  }));
  yield plan.invalidates.map(({ node }) => ({ do: 'retire', node }));
  if (emptyTop)
    yield [
      { do: 'barrier', nodes: [base, top] },
      { do: 'deallocate', node: top, range: whole },
    ];
}

/** Copies and zeroes from `start` on, with a checkpoint at least every half of what a crash may cost: one epoch is copied while the last is made durable. */
async function* copySteps(
  plan: CommitPlan,
  view: ChainView,
  start: number,
  end: number,
): AsyncGenerator<readonly Step[], void, undefined> {
  const { base, top, checkpointBytes } = plan.request;
  const epoch = Math.max(1, Math.floor(checkpointBytes / 2));
  let sinceCheckpoint = 0;
  for await (const batch of view.extentsAbove(
    { base, top },
    rangeBetween(guestOffset(start), end),
  )) {
    const list: Step[] = [];
    for (const extent of batch) {
      if (extent.owner === null) continue;
      const from = (view.chain[extent.owner] as LayerFacts).node;
      if (extent.status === 'zero') {
        list.push({
          do: 'zero',
          node: base,
          range: { offset: extent.offset, length: extent.length },
        });
        continue;
      }
      for (const range of splitRange(extent, epoch)) {
        list.push({ do: 'copy', from, to: base, range, host: hostAt(extent, range.offset) });
        sinceCheckpoint += range.length;
        if (sinceCheckpoint < epoch) continue;
        list.push({ do: 'checkpoint', cursor: { phase: 'copy', offset: rangeEnd(range) } });
        sinceCheckpoint = 0;
      }
    }
    yield list;
  }
}

/** Where guest byte `at` of an extent lies in its file; null when it does not lie there plainly. */
function hostAt(extent: OwnedExtent, at: number): ReturnType<typeof hostOffset> | null {
  return extent.status === 'data' ? hostOffset(extent.host + (at - extent.offset)) : null;
}
