import type { LayerFacts, NodeId, OwnedBatch, OwnedExtent } from '@downfold/chain';
import type { ExtentBatch } from '@downfold/image';
import type { OperationOptions } from '@downfold/storage';
import type { GuestRange } from '@downfold/units';
import type { CommitPlan, CommitRequest, Dependent, Operation } from './plan.ts';
import type { Cursor, Step } from './step.ts';

/** What a strategy may look at: allocation, never content, and no way to do I/O. */
export interface ChainView {
  /** The chain, bottom first. */
  readonly chain: readonly LayerFacts[];
  /** `rebase`: the new backing chain, bottom first, from where it differs from `chain`; else empty. */
  readonly onto: readonly LayerFacts[];
  /** What each image reads through to as the job starts. */
  readonly links: Readonly<Record<NodeId, NodeId | null>>;
  /** Every image of the pool that has `node` as its backing file, the chain's own included. */
  overlaysOf(node: NodeId): readonly LayerFacts[];
  /** Images outside the chain that read through base or an intermediate without top between: who could be stranded. */
  readonly outsiders: readonly LayerFacts[];
  /** Everyone in the pool who depends on a layer of the chain and is not in it. */
  readonly dependents: readonly Dependent[];
  /** What `node`'s format can do. */
  can(node: NodeId, ability: 'deallocate' | 'mark' | 'stage' | 'zero'): boolean;
  /** Allocation of one image within its own size, as it is now. Data in large holes of its file is `zero`. */
  extents(node: NodeId, range: GuestRange, options?: OperationOptions): AsyncIterable<ExtentBatch>;
  /**
   * Merged allocation of the layers above `base` (null: of all) up to `top`, in the order in which the plan found the images linked;
   * `owner` is the node that decides. Data in large holes of a file is `zero`. Past a short layer's end: `zero`, owned by it.
   */
  extentsAbove(
    subchain: { readonly base: NodeId | null; readonly top: NodeId },
    range: GuestRange,
    options?: OperationOptions,
  ): AsyncIterable<OwnedBatch<NodeId>>;
}

/** A run of a merged view; `owner` decides it, null: no layer does. */
export type NodeExtent = OwnedExtent<NodeId>;

/**
 * An algorithm that commits: it decides, the engine does. No I/O, clock, randomness or state beside plan and cursor, so
 * that the same plan and cursor always give the same steps.
 */
export interface CommitStrategy {
  readonly name: string;
  /** Bumped when a cursor of the version before cannot be continued. */
  readonly version: number;
  readonly operation: Operation;
  /** One line for `--help` and the plan. */
  readonly summary: string;
  /** Nobody but base changes meaning: can be asked for with siblings that must be kept. */
  readonly keepsSiblings: boolean;
  /** Commits the active layer of a disk in use, ending with a `pivot`: works only there. Default: never does. */
  readonly pivots?: boolean;
  /** @throws CommitError `COMMIT_UNSUPPORTED` with the reason when it cannot do the request. */
  plan(request: CommitRequest, view: ChainView, options?: OperationOptions): Promise<CommitPlan>;
  /** All steps from `cursor` on (null: from the start), in batches. The last checkpoint's cursor is the way back in. */
  steps(plan: CommitPlan, view: ChainView, cursor: Cursor | null): AsyncIterable<readonly Step[]>;
}
