import type { LayerFacts, NodeId } from '@downfold/chain';
import type { BackingReference } from '@downfold/image';
import type { ByteLength, GuestRange } from '@downfold/units';

/** What a user asks for, by node. */
export interface CommitRequest {
  /** Receives the data. */
  readonly base: NodeId;
  /** Its data, and that of the layers between, is committed. */
  readonly top: NodeId;
  /** Deallocate everything in top once base holds it (`qemu-img commit` without `-d`). Only when top has no overlay. */
  readonly emptyTop: boolean;
  /** Accept that images outside the chain which depend on base or an intermediate lose their meaning. */
  readonly invalidateSiblings: boolean;
  /** Bytes copied between two checkpoints at most. */
  readonly checkpointBytes: ByteLength;
}

/** Bytes per allocation case (design section 4), of the range [0, size(top)). */
export interface CaseBytes {
  /** Case 1: allocated nowhere above base; nothing to do. */
  readonly unallocated: number;
  /** Case 2: allocated in an intermediate and not in top. */
  readonly intermediateOnly: number;
  /** Case 3: allocated in top and in an intermediate; only the uppermost matters. */
  readonly several: number;
  /** Case 4: allocated in top only; from its first write on, intermediates read wrong. */
  readonly topOnly: number;
}

/** An image whose meaning ends, and when. */
export interface Invalidation {
  readonly node: NodeId;
  /** One line for people: `from the first write to base`. */
  readonly after: string;
}

/** One backing reference that will be rewritten. */
export interface Relink {
  readonly overlay: NodeId;
  readonly backing: NodeId;
  readonly from: BackingReference;
  readonly to: BackingReference;
}

/**
 * What will be done, before anything is done: plain, versioned JSON. It can be shown, reviewed, stored, and run later; the
 * engine refuses it when an image changed since.
 */
export interface CommitPlan {
  readonly planVersion: 1;
  readonly strategy: { readonly name: string; readonly version: number };
  readonly request: CommitRequest;
  /** The chain, bottom first, then other overlays of top that are relinked too, then accepted losses. */
  readonly images: readonly LayerFacts[];
  /** How many of `images` are the chain. */
  readonly chainLength: number;
  /** Images whose guest-visible content is the same after every step. */
  readonly preserves: readonly NodeId[];
  /** Images that stop representing any point in time. */
  readonly invalidates: readonly Invalidation[];
  /** Images outside `images` that read through base or an intermediate and lose their meaning (paths); only when accepted. */
  readonly strands: readonly string[];
  readonly relinks: readonly Relink[];
  /** Base grows to this, in bytes; null: stays. */
  readonly growBaseTo: ByteLength | null;
  /** Explicit zeros in base past the end of a short top, so that longer overlays keep reading zeros; null: none needed. */
  readonly zeroTail: GuestRange | null;
  readonly cases: CaseBytes;
  /** Bytes that will be copied, and made zero by metadata. */
  readonly bytesToCopy: number;
  readonly bytesToZero: number;
  /** Upper bound of bytes written to each image's file, data and metadata. */
  readonly bytesWrittenAtMost: number;
}
