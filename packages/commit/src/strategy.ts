import type { LayerFacts, NodeId, OwnedExtent } from '@downfold/chain';
import type { Extent } from '@downfold/image';
import type { OperationOptions } from '@downfold/storage';
import type { GuestRange } from '@downfold/units';
import type { CommitPlan, CommitRequest } from './plan.ts';
import type { Cursor, Step } from './step.ts';

/** What a strategy may look at: allocation, never content, and no way to do I/O. */
export interface ChainView {
  /** The chain, bottom first. */
  readonly chain: readonly LayerFacts[];
  /** Every image of the pool that has `node` as its backing file, the chain's own included. */
  overlaysOf(node: NodeId): readonly LayerFacts[];
  /** Images outside the chain that would stop reading what they read; empty unless the user accepted that. */
  readonly stranded: readonly LayerFacts[];
  /** Allocation of one layer within its own size. */
  extents(
    node: NodeId,
    range: GuestRange,
    options?: OperationOptions,
  ): AsyncIterable<readonly Extent[]>;
  /** Merged allocation of the layers above `base` up to `top`; `owner` indexes `chain`. Past a short layer's end: `zero`, owned by it. */
  extentsAbove(
    subchain: { readonly base: NodeId; readonly top: NodeId },
    range: GuestRange,
    options?: OperationOptions,
  ): AsyncIterable<readonly OwnedExtent[]>;
}

/**
 * An algorithm that commits: it decides, the engine does. No I/O, clock, randomness or state beside plan and cursor, so
 * that the same plan and cursor always give the same steps.
 */
export interface CommitStrategy {
  readonly name: string;
  /** Bumped when a cursor of the version before cannot be continued. */
  readonly version: number;
  /** One line for `--help` and the plan. */
  readonly summary: string;
  /** @throws CommitError `COMMIT_UNSUPPORTED` with the reason when it cannot do the request. */
  plan(request: CommitRequest, view: ChainView, options?: OperationOptions): Promise<CommitPlan>;
  /** All steps from `cursor` on (null: from the start), in batches. The last checkpoint's cursor is the way back in. */
  steps(plan: CommitPlan, view: ChainView, cursor: Cursor | null): AsyncIterable<readonly Step[]>;
}
