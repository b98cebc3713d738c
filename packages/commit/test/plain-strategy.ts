import { guestOffset, hostOffset, rangeBetween, splitRange } from '@downfold/units';
import {
  type CommitStrategy,
  commitPlan,
  commonCosts,
  planFacts,
  type Step,
  writesBase,
} from '../src/index.ts';

/** The shortest strategy that holds the contract: copies piece after piece of the merged view, each after a checkpoint; then relinks. */
export const plain: CommitStrategy = {
  name: 'plain',
  version: 1,
  operation: 'commit',
  keepsSiblings: false,
  summary: 'copies piece after piece, then relinks',

  plan: async (request, view, options) => {
    const facts = await planFacts(request, view, options);
    const { base, intermediates, overlays, relinks, top } = facts;
    const lost = writesBase(facts) ? [...intermediates, ...view.outsiders] : [];
    const stay = view.chain.filter((one) => one !== base && !intermediates.includes(one));
    return commitPlan(plain, request, view, facts, {
      writes: [base.node, top.node, ...relinks.map(({ overlay }) => overlay)],
      reads: intermediates.map(({ node }) => node),
      preserves: [...stay, ...overlays].map(({ node }) => node),
      invalidates: lost.map(({ node }) => ({ node, after: 'the first write to base' })),
      costs: commonCosts(facts, lost, request),
    });
  },

  steps: async function* (plan, view, cursor) {
    const { growBaseTo, invalidates, relinks, zeroTail } = plan;
    const { base, checkpointBytes, emptyTop, top } = plan.request;
    const end = plan.images.find(({ node }) => node === top)?.geometry.virtualSize ?? 0;
    if (base === null) return;
    yield [{ do: 'invalidate', nodes: [base, ...invalidates.map(({ node }) => node)] }];
    if (growBaseTo !== null) yield [{ do: 'grow', node: base, virtualSize: growBaseTo }];
    const left = rangeBetween(guestOffset(Number(cursor?.['at'] ?? 0)), end);
    for await (const batch of view.extentsAbove({ base, top }, left))
      for (const { owner, ...extent } of batch) {
        if (owner === null) continue;
        const { offset, length } = extent;
        if (extent.status === 'zero') yield [{ do: 'zero', node: base, range: { offset, length } }];
        else
          for (const range of splitRange({ offset, length }, checkpointBytes / 2)) {
            const ahead = range.offset - offset;
            const host = extent.status === 'data' ? hostOffset(extent.host + ahead) : null;
            yield [
              { do: 'checkpoint', cursor: { at: range.offset } },
              { do: 'copy', from: owner, to: base, range, host },
            ];
          }
      }
    yield [
      ...(zeroTail === null ? [] : [{ do: 'zero', node: base, range: zeroTail } as const]),
      { do: 'barrier', nodes: [base] },
      { do: 'checkpoint', cursor: { at: end, complete: true } },
      ...relinks.map(
        ({ overlay, backing, to }): Step => ({ do: 'relink', overlay, backing, reference: to }),
      ),
      ...invalidates.map(({ node }): Step => ({ do: 'retire', node })),
    ];
    if (emptyTop) yield [{ do: 'deallocate', node: top, range: rangeBetween(guestOffset(0), end) }];
  },
};
