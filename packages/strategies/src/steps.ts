import type { LayerFacts, NodeId } from '@downfold/chain';
import type { CommitPlan, NodeExtent, Relink, Step } from '@downfold/commit';
import {
  type ByteLength,
  type GuestOffset,
  type GuestRange,
  type HostOffset,
  hostOffset,
  rangeBetween,
  splitRange,
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

  /** The step; before it a checkpoint, when more than an epoch would have been copied since the last one. */
  admit(step: Writing): readonly Step[] {
    const bytes = copiedBy(step);
    const full = this.#copied > 0 && this.#copied + bytes > this.#bytes;
    this.#copied = bytes + (full ? 0 : this.#copied);
    if (!full) return [step];
    return [{ do: 'checkpoint', cursor: { phase: 'copy', offset: step.range.offset } }, step];
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
  if (extent.owner === null) return [];
  const { owner, offset, length } = extent;
  if (extent.status === 'zero') return [{ do: 'zero', node: to, range: { offset, length } }];
  const steps: Writing[] = [];
  for (const range of splitRange(extent, piece))
    steps.push({ do: 'copy', from: owner, to, range, host: hostAt(extent, range.offset) });
  return steps;
}

/** Where guest byte `at` of an extent lies in its file; null when it does not lie there plainly. */
function hostAt(extent: NodeExtent, at: number): HostOffset | null {
  return extent.status === 'data' ? hostOffset(extent.host + (at - extent.offset)) : null;
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
