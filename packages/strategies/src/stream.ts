import type { LayerFacts, NodeId } from '@downfold/chain';
import {
  type ChainView,
  CommitError,
  type CommitPlan,
  type CommitStrategy,
  type Cursor,
  factsIn,
  type Step,
} from '@downfold/commit';
import { guestOffset, rangeBetween, rangeEnd } from '@downfold/units';
import { pullPlan } from './pull-plan.ts';
import { Shadow } from './shadow.ts';
import { copyExtent, cut, Epochs, epochOf, relinkStep, type Writing, wholeDisk } from './steps.ts';

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
    const pull = { bytes: 0, zeros: 0, runs: 0 };
    for await (const batch of pulled(view, top, request.base, 0))
      for (const step of batch)
        if (step.do === 'zero') pull.zeros += step.range.length;
        else {
          pull.bytes += step.range.length;
          pull.runs++;
        }
    return pullPlan(stream, request, view, top, pull);
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
    const epochs = new Epochs(plan);
    const from = Number(cursor?.['offset'] ?? 0);
    for await (const batch of pulled(view, factsIn(plan, top), base, from, epochOf(plan))) {
      const list: Step[] = [];
      for (const step of batch) epochs.admit(step, list);
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
): AsyncGenerator<readonly Writing[], void, undefined> {
  const under = view.links[top.node] as NodeId;
  const end = rangeEnd(wholeDisk(top));
  const shadow = new Shadow(view, top, from, end);
  try {
    const range = rangeBetween(guestOffset(from), end);
    for await (const batch of view.extentsAbove({ base, top: under }, range)) {
      const list: Writing[] = [];
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
