import type { LayerFacts, NodeId, OwnedBatch } from '@downfold/chain';
import {
  type ChainView,
  type CommitPlan,
  type CommitStrategy,
  type Cursor,
  ExtentCursor,
  factsIn,
  isZeroKind,
  type Step,
} from '@downfold/commit';
import {
  type ByteLength,
  type GuestOffset,
  guestOffset,
  rangeBetween,
  rangeEnd,
  splitRange,
} from '@downfold/units';
import { pullPlan } from './pull-plan.ts';
import { Shadow } from './shadow.ts';
import { Epochs, epochOf, relinkStep, wholeDisk } from './steps.ts';

/**
 * Gives an image another backing file. Safe: where the old and the new backing file show different bytes, the old ones go into
 * the image first, durably. `unsafe`: the user says that they show the same; only the reference changes.
 */
export const rebase: CommitStrategy = {
  name: 'rebase',
  version: 1,
  operation: 'rebase',
  keepsSiblings: true,
  summary: 'give an image another backing file, and first what would read differently over it',
  plan: async (request, view) => {
    const top = view.chain.find(({ node }) => node === request.top) as LayerFacts;
    // at most: what turns out to be the same is not written
    const pull = { bytes: 0, zeros: 0, runs: 0 };
    if (!request.unsafe)
      for await (const batch of differing(view, top, request.base, 0))
        for (const { length } of batch) {
          pull.bytes += length;
          pull.runs++;
        }
    return pullPlan(rebase, request, view, top, pull);
  },
  steps,
};

async function* steps(
  plan: CommitPlan,
  view: ChainView,
  cursor: Cursor | null,
): AsyncGenerator<readonly Step[], void, undefined> {
  const { top, unsafe } = plan.request;
  if (cursor?.['phase'] !== 'relink') {
    if (!unsafe) yield* saving(plan, view, Number(cursor?.['offset'] ?? 0));
    yield [
      { do: 'barrier', nodes: [top] },
      { do: 'checkpoint', cursor: { phase: 'relink', complete: true } },
    ];
  }
  yield plan.relinks.map(relinkStep);
}

async function* saving(
  plan: CommitPlan,
  view: ChainView,
  from: number,
): AsyncGenerator<readonly Step[], void, undefined> {
  const { base, top } = plan.request;
  const epochs = new Epochs(plan);
  for await (const batch of differing(view, factsIn(plan, top), base, from)) {
    const list: Step[] = [];
    for (const run of batch)
      for (const range of splitRange(run, epochOf(plan)))
        epochs.admit({ do: 'copy', from: top, to: top, range, host: null, unlike: base }, list);
    yield list;
  }
}

type Run = { readonly offset: GuestOffset; readonly length: ByteLength };

/** Where top shows what lies below it, and old and new backing file are decided by different layers: only there can they differ. */
async function* differing(
  view: ChainView,
  top: LayerFacts,
  base: NodeId | null,
  from: number,
): AsyncGenerator<readonly Run[], void, undefined> {
  const end = rangeEnd(wholeDisk(top));
  const under = view.links[top.node] ?? null;
  const [old, fresh] = [new Owners(view, under, from, end), new Owners(view, base, from, end)];
  const shadow = new Shadow(view, top, from, end);
  let batch: Run[] = [];
  try {
    for (let at = from; at < end; ) {
      const [mine, theirs] = [await old.at(at), await fresh.at(at)];
      const stop = Math.min(end, mine.end, theirs.end);
      if (mine.owner !== theirs.owner)
        for (const [start, to] of await shadow.openIn(at, stop)) append(batch, start, to);
      at = stop;
      if (batch.length < BATCH_RUNS) continue;
      yield batch;
      batch = [];
    }
    yield batch;
  } finally {
    await Promise.all([old.close(), fresh.close(), shadow.close()]);
  }
}

const BATCH_RUNS = 1024;

function append(batch: Run[], from: number, to: number): void {
  const last = batch.at(-1);
  if (last === undefined || rangeEnd(last) < from) batch.push(rangeBetween(guestOffset(from), to));
  else batch[batch.length - 1] = rangeBetween(last.offset, to);
}

/** Which layer decides each byte of a view, asked in ascending order; null where it reads as zeros. */
class Owners {
  readonly #extents: ExtentCursor<OwnedBatch<NodeId>> | null;

  constructor(view: ChainView, top: NodeId | null, from: number, to: number) {
    const range = rangeBetween(guestOffset(from), to);
    this.#extents =
      top === null ? null : new ExtentCursor(view.extentsAbove({ base: null, top }, range));
  }

  async at(at: number): Promise<{ readonly end: number; readonly owner: NodeId | null }> {
    const batch = (await this.#extents?.to(at)) ?? null;
    if (this.#extents === null || batch === null)
      return { end: Number.POSITIVE_INFINITY, owner: null };
    const { index } = this.#extents;
    const end = batch.ends[index] as number;
    return { end, owner: isZeroKind(batch.kinds[index]) ? null : (batch.owners[index] ?? null) };
  }

  async close(): Promise<void> {
    await this.#extents?.close();
  }
}
