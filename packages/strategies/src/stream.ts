import type { LayerFacts, NodeId } from '@downfold/chain';
import {
  type ChainView,
  CommitError,
  type CommitPlan,
  type CommitStrategy,
  type Cursor,
  relinkTo,
  type Step,
  writeCost,
} from '@downfold/commit';
import { guestOffset, rangeBetween, rangeEnd } from '@downfold/units';
import { Shadow } from './shadow.ts';
import { copyExtent, cut, epochOf, factsOf, relinkStep, wholeDisk } from './steps.ts';

/**
 * Pulls up into an image what the layers between it and base hold, then relinks it to base, or to nothing. Nobody changes meaning; the
 * layers between stay as they are. What was pulled is allocated, so that a restart finds what is left by itself.
 */
export const stream: CommitStrategy = {
  name: 'stream',
  version: 1,
  operation: 'stream',
  keepsSiblings: true,
  summary: 'pull data up into an image, then relink it below what it came from',
  plan: async (request, view) => {
    const top = view.chain.find(({ node }) => node === request.top) as LayerFacts;
    const under = view.links[top.node] ?? null;
    if (under === null || under === request.base)
      throw new CommitError('COMMIT_BAD_REQUEST', `${top.path}: there is nothing to pull`, {
        image: top.path,
      });
    const base = view.chain.find(({ node }) => node === request.base) ?? null;
    const amount = { bytes: 0, zeros: 0, runs: 0 };
    for await (const batch of pulled(view, top, request.base, 0))
      for (const step of batch)
        if (step.do === 'zero') amount.zeros += step.range.length;
        else {
          amount.bytes += step.range.length;
          amount.runs++;
        }
    const written = writeCost(top, amount);
    return {
      planVersion: 1,
      strategy: { name: stream.name, version: stream.version },
      chosen: null,
      request,
      images: view.chain,
      chainLength: view.chain.length,
      links: view.links,
      writes: [top.node],
      reads: view.chain.filter((one) => one !== top).map(({ node }) => node),
      preserves: view.chain.map(({ node }) => node),
      invalidates: [],
      strands: [],
      dependents: view.dependents,
      pools: [],
      relinks: [
        base === null
          ? { overlay: top.node, backing: null, from: top.backing, to: null }
          : relinkTo(top, base),
      ],
      growBaseTo: null,
      zeroTail: null,
      cases: { unallocated: 0, intermediateOnly: 0, several: 0, topOnly: 0 },
      bytesToCopy: amount.bytes,
      bytesToZero: amount.zeros,
      bytesWrittenAtMost: written,
      costs: [{ node: top.node, written, freed: 0 }],
      temporaryBytes: 0,
      estimatedSeconds: null,
    };
  },
  steps,
};

async function* steps(
  plan: CommitPlan,
  view: ChainView,
  cursor: Cursor | null,
): AsyncGenerator<readonly Step[], void, undefined> {
  const { base, top } = plan.request;
  if (cursor?.['phase'] !== 'relink') {
    const epoch = epochOf(plan);
    let sinceCheckpoint = 0;
    const from = Number(cursor?.['offset'] ?? 0);
    for await (const batch of pulled(view, factsOf(plan, top), base, from, epoch)) {
      const list: Step[] = [];
      for (const step of batch) {
        list.push(step);
        sinceCheckpoint += step.range.length;
        if (sinceCheckpoint < epoch) continue;
        list.push({ do: 'checkpoint', cursor: { phase: 'copy', offset: rangeEnd(step.range) } });
        sinceCheckpoint = 0;
      }
      yield list;
    }
    yield [
      { do: 'barrier', nodes: [top] },
      { do: 'checkpoint', cursor: { phase: 'relink', complete: true } },
    ];
  }
  yield plan.relinks.map(relinkStep);
}

/** Writes into top of what the layers between it and base hold, where top leaves it to them; from byte `from` on. */
async function* pulled(
  view: ChainView,
  top: LayerFacts,
  base: NodeId | null,
  from: number,
  piece: number = Number.MAX_SAFE_INTEGER,
): AsyncGenerator<readonly Extract<Step, { do: 'copy' | 'zero' }>[], void, undefined> {
  const under = view.links[top.node] as NodeId;
  const end = rangeEnd(wholeDisk(top));
  const shadow = new Shadow(view, top, from, end);
  try {
    const range = rangeBetween(guestOffset(from), end);
    for await (const batch of view.extentsAbove({ base, top: under }, range)) {
      const list: Extract<Step, { do: 'copy' | 'zero' }>[] = [];
      for (const extent of batch) {
        // with nothing below any more, what nobody holds reads as zeros by itself
        if (extent.owner === null || (extent.status === 'zero' && base === null)) continue;
        for (const [start, stop] of await shadow.openIn(extent.offset, rangeEnd(extent)))
          list.push(...copyExtent(cut(extent, start, stop), top.node, piece));
      }
      yield list;
    }
  } finally {
    await shadow.close();
  }
}
