import type { LayerFacts, NodeId, OwnedBatch } from '@downfold/chain';
import {
  type CommitPlan,
  isZeroKind,
  KIND,
  type NodeExtent,
  type Relink,
  type Step,
} from '@downfold/commit';

import {
  type ByteLength,
  type GuestOffset,
  type GuestRange,
  hostOffset,
  rangeBetween,
} from '@downfold/units';

/** A step that writes. */
export type Writing = Extract<Step, { do: 'copy' | 'zero' }>;

const SMALLEST_EPOCH = 512;

/**
 * Bytes of the disk between two checkpoints, when each is copied `copies` times: a crash may cost twice that, since one epoch is copied while
 * the last is made durable. A power of two, so that pieces of that size end where clusters do.
 */
export function epochOf(plan: CommitPlan, copies = 1): number {
  const bytes = plan.request.checkpointBytes / 2 / copies;
  return Math.max(SMALLEST_EPOCH, 2 ** Math.floor(Math.log2(Math.max(1, bytes))));
}

/** Cuts a pass over the disk into epochs, each ended by a checkpoint that says where the next one starts. */
export class Epochs {
  readonly #bytes: number;
  #copied = 0;

  constructor(plan: CommitPlan) {
    this.#bytes = epochOf(plan);
  }

  /** Adds the step to a list; before it a checkpoint, when more than an epoch would have been copied since the last one. */
  admit(step: Writing, list: Step[]): void {
    const bytes = copiedBy(step);
    const full = this.#copied > 0 && this.#copied + bytes > this.#bytes;
    this.#copied = bytes + (full ? 0 : this.#copied);
    if (full) list.push({ do: 'checkpoint', cursor: { phase: 'copy', offset: step.range.offset } });
    list.push(step);
  }
}

/** Bytes that a step copies: zeros are made by metadata. */
export function copiedBy(step: Writing): number {
  return step.do === 'copy' ? step.range.length : 0;
}

/** All of an image's virtual disk. */
export function wholeDisk({ geometry }: LayerFacts): GuestRange {
  return rangeBetween(0 as GuestOffset, geometry.virtualSize);
}

/** Steps that give `to` what `extent` holds, in pieces of at most `piece` bytes; nothing when no layer decides it. */
export function copyExtent(extent: NodeExtent, to: NodeId, piece: number): readonly Writing[] {
  const { owner, offset, length, status } = extent;
  if (owner === null) return [];
  const steps: Writing[] = [];
  const host = status === 'data' ? extent.host : null;
  const run = {
    from: owner,
    to,
    zero: status === 'zero',
    start: offset,
    end: offset + length,
    host,
  };
  addSteps(run, piece, (step) => steps.push(step));
  return steps;
}

/** As `copyExtent`, of the extent at `index` of a batch: there are millions, and an object for each takes longer than what is done with it. */
export function addCopies(
  { starts, ends, kinds, hosts, owners }: OwnedBatch<NodeId>,
  index: number,
  to: NodeId,
  piece: number,
  add: (step: Writing) => void,
): void {
  const from = owners[index] ?? null;
  if (from === null) return;
  const kind = kinds[index];
  const host = kind === KIND.data ? (hosts[index] as number) : null;
  const [start, end] = [starts[index] as number, ends[index] as number];
  addSteps({ from, to, zero: isZeroKind(kind), start, end, host }, piece, add);
}

/** Bytes [start, end) that `from` holds: zeros, or bytes that lie at `host` of its file; null: not plainly. */
interface HeldRun {
  readonly from: NodeId;
  readonly to: NodeId;
  readonly zero: boolean;
  readonly start: number;
  readonly end: number;
  readonly host: number | null;
}

function addSteps(
  { from, to, zero, start, end, host }: HeldRun,
  piece: number,
  add: (step: Writing) => void,
): void {
  if (zero) {
    add({ do: 'zero', node: to, range: rangeOf(start, end) });
    return;
  }
  // as `splitRange` does, without an iterator for each of millions
  for (let at = start; at < end; ) {
    const next = Math.min(end, at - (at % piece) + piece);
    const place = host === null ? null : hostOffset(host + (at - start));
    add({ do: 'copy', from, to, range: rangeOf(at, next), host: place });
    at = next;
  }
}

function rangeOf(start: number, end: number): GuestRange {
  return { offset: start as GuestOffset, length: (end - start) as ByteLength };
}

/** The part of an extent within [from, to). */
export function cut(extent: NodeExtent, from: number, to: number): NodeExtent {
  const start = Math.max(from, extent.offset);
  const end = Math.min(to, extent.offset + extent.length);
  const range = { offset: start as GuestOffset, length: (end - start) as ByteLength };
  if (extent.status === 'data')
    return { ...extent, ...range, host: hostOffset(extent.host + (start - extent.offset)) };
  return { ...extent, ...range };
}

/** The step of a relink. */
export function relinkStep({ overlay, backing, to }: Relink): Step {
  return { do: 'relink', overlay, backing, reference: to };
}
