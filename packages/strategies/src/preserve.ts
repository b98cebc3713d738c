import type { LayerFacts, NodeId } from '@downfold/chain';
import {
  type ChainView,
  CommitError,
  type CommitPlan,
  type CommitStrategy,
  type Cursor,
  commitPlan,
  commonCosts,
  factsIn,
  planFacts,
  type Step,
  writeCost,
} from '@downfold/commit';
import {
  alignDown,
  alignUp,
  type GuestRange,
  guestOffset,
  rangeBetween,
  rangeEnd,
  splitRange,
} from '@downfold/units';
import { Shadow } from './shadow.ts';
import { copyExtent, epochOf, relinkStep, type Writing, wholeDisk } from './steps.ts';

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
    assertReadAsDisk(facts.base, readers);
    const pushes = await amountsOf(view, facts.base, facts.top, readers, facts.zeroTail);
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
        ...commonCosts(facts, [], request),
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
  base: LayerFacts,
  top: LayerFacts,
  readers: readonly LayerFacts[],
  zeroTail: GuestRange | null,
): Promise<readonly Amount[]> {
  const amounts: Amount[] = [];
  for (const reader of readers) {
    const sum = { bytes: 0, zeros: 0, runs: 0 };
    const ranges = overwritten(view, base.node, top, zeroTail);
    for await (const step of pushSteps(view, base.node, reader, 0, ranges)) {
      sum.runs++;
      if (step.do === 'zero') sum.zeros += step.range.length;
      else sum.bytes += step.range.length;
    }
    amounts.push(sum);
  }
  return amounts;
}

/** All of base that will be written, ascending. */
async function* overwritten(
  view: ChainView,
  base: NodeId,
  top: LayerFacts,
  zeroTail: GuestRange | null,
): AsyncGenerator<GuestRange, void, undefined> {
  for await (const batch of view.extentsAbove({ base, top: top.node }, wholeDisk(top)))
    for (const extent of batch) if (extent.owner !== null) yield extent;
  if (zeroTail !== null) yield zeroTail;
}

async function* steps(
  plan: CommitPlan,
  view: ChainView,
  cursor: Cursor | null,
): AsyncGenerator<readonly Step[], void, undefined> {
  const { base, top, emptyTop } = plan.request;
  if (base === null) return;
  const whole = wholeDisk(factsIn(plan, top));
  if (cursor?.['phase'] !== 'relink') {
    yield [
      { do: 'invalidate', nodes: [base] },
      ...(plan.growBaseTo === null
        ? []
        : [{ do: 'grow', node: base, virtualSize: plan.growBaseTo } as const]),
    ];
    yield* epochs(plan, view, Number(cursor?.['offset'] ?? 0));
    yield [
      { do: 'barrier', nodes: [base] },
      { do: 'checkpoint', cursor: { phase: 'relink', complete: true } },
    ];
  }
  yield plan.relinks.map(relinkStep);
  // base holds all of it durably: that was made sure of before the relinks
  if (emptyTop) yield [{ do: 'deallocate', node: top, range: whole }];
}

/** @throws CommitError for a reader that takes base for another format: it shows base's file, tables and all, which is not what is pushed into it */
function assertReadAsDisk(base: LayerFacts, readers: readonly LayerFacts[]): void {
  const other = readers.find(({ backing }) => (backing?.format ?? base.format) !== base.format);
  if (other === undefined) return;
  throw new CommitError(
    'COMMIT_UNSUPPORTED',
    `${other.path}: names '${base.path}' as a ${other.backing?.format} file, and it is ${base.format}: what it reads cannot be kept; say the right format (downfold rebase -u -F ${base.format}), or move it out of the pool`,
    { image: other.path, base: base.path },
  );
}

/** Writes of base, collected until they make an epoch; each byte may have to be pushed into every reader first. */
async function* epochs(
  plan: CommitPlan,
  view: ChainView,
  from: number,
): AsyncGenerator<readonly Step[], void, undefined> {
  const base = factsIn(plan, plan.request.base);
  const readers = view.overlaysOf(base.node);
  const units = [base, ...readers].map(({ geometry }) => geometry.allocationGranularity);
  const epoch = Math.max(epochOf(plan, 1 + readers.length), ...units);
  let writes: Writing[] = [];
  let bytes = 0;
  for await (const step of writesOf(plan, view, from, epoch)) {
    if (bytes > 0 && bytes + step.range.length > epoch) {
      yield* overwrite(plan, view, writes);
      yield [{ do: 'checkpoint', cursor: { phase: 'copy', offset: step.range.offset } }];
      writes = [];
      bytes = 0;
    }
    writes.push(step);
    bytes += step.range.length;
  }
  yield* overwrite(plan, view, writes);
}

/** All writes of base from byte `from` on, ascending, in pieces: zeros too, since what they overwrite is pushed. */
async function* writesOf(
  plan: CommitPlan,
  view: ChainView,
  from: number,
  piece: number,
): AsyncGenerator<Writing, void, undefined> {
  const { request, zeroTail } = plan;
  const { base, top } = request;
  if (base === null) return;
  const range = rangeBetween(guestOffset(from), rangeEnd(wholeDisk(factsIn(plan, top))));
  for await (const batch of view.extentsAbove({ base, top }, range))
    for (const extent of batch)
      if (extent.status === 'zero') yield* zeroPieces(base, extent, piece);
      else yield* copyExtent(extent, base, piece);
  if (zeroTail === null) return;
  const start = Math.max(from, zeroTail.offset);
  yield* zeroPieces(base, rangeBetween(guestOffset(start), rangeEnd(zeroTail)), piece);
}

function* zeroPieces(
  node: NodeId,
  range: GuestRange,
  piece: number,
): Generator<Writing, void, undefined> {
  for (const part of splitRange(range, piece)) yield { do: 'zero', node, range: part };
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
    const from = (ranges[0] as GuestRange).offset;
    for await (const step of pushSteps(view, base, reader, from, ranges)) pushes.push(step);
    yield pushes;
  }
  yield [{ do: 'barrier', nodes: readers.map(({ node }) => node) }];
  yield writes;
}

/**
 * Steps that give a reader what base shows in `ranges` (ascending, from byte `from` on), where the reader leaves it to base. Whole units of the
 * reader: in a part of one the rest would be decided by the reader too.
 */
async function* pushSteps(
  view: ChainView,
  base: NodeId,
  reader: LayerFacts,
  from: number,
  ranges: Iterable<GuestRange> | AsyncIterable<GuestRange>,
): AsyncGenerator<Writing, void, undefined> {
  const { allocationGranularity: unit, virtualSize: size } = reader.geometry;
  const shadow = new Shadow(view, reader, from, size);
  let pushed = 0;
  try {
    for await (const range of ranges)
      for (const [open, to] of await shadow.openIn(range.offset, rangeEnd(range))) {
        const start = Math.max(pushed, alignDown(open, unit));
        pushed = Math.max(pushed, Math.min(size, alignUp(to, unit)));
        yield* contentOf(view, base, reader.node, rangeBetween(guestOffset(start), pushed));
      }
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
  let end = range.offset;
  let zeros = 0;
  const zeroed = (): readonly Writing[] => {
    if (zeros === 0) return [];
    const part = rangeBetween(guestOffset(end - zeros), end);
    zeros = 0;
    return [{ do: 'zero', node: to, range: part }];
  };
  for await (const batch of view.extentsAbove({ base: null, top: base }, range))
    for (const extent of batch) {
      if (extent.owner === null || extent.status === 'zero') zeros += extent.length;
      else {
        yield* zeroed();
        yield* copyExtent(extent, to, range.length);
      }
      end = rangeEnd(extent);
    }
  yield* zeroed();
}
