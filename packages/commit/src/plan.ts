import type { LayerFacts, NodeId } from '@downfold/chain';
import type { BackingReference } from '@downfold/image';
import type { ByteLength, GuestRange } from '@downfold/units';
import type { BitmapFate, BitmapsMode } from './bitmap-fate.ts';

/** What a job is for: data down into base, data up into top, or another backing file for top. */
export type Operation = 'commit' | 'stream' | 'rebase';

/** What a user asks for, by node. */
export interface CommitRequest {
  readonly operation: Operation;
  /**
   * `commit`: receives the data. `stream`: where the chain goes on below top afterwards. `rebase`: the new backing file.
   * Null (not for `commit`): nothing, top stands alone afterwards.
   */
  readonly base: NodeId | null;
  /** `rebase`, `unsafe`: the new backing file where there is no file yet; `base` is null. Its path is absolute. */
  readonly absent?: { readonly path: string; readonly format: string };
  /** `rebase`: how the reference names the new backing file. Absent: by a name made of its path. */
  readonly baseName?: string;
  /** `commit`: its data, and that of the layers between, goes to base. `stream`, `rebase`: receives data. */
  readonly top: NodeId;
  /** Deallocate everything in top once base holds it (`qemu-img commit` without `-d`). Only when top has no overlay. */
  readonly emptyTop: boolean;
  /** What happens to images outside the chain which depend on what changes: lose their meaning, or keep what they read. */
  readonly siblings: 'refuse' | 'invalidate' | 'keep';
  /** `staged`: the old base stays as an internal snapshot. */
  readonly keepUndo: boolean;
  /** `commit`: what becomes of persistent dirty bitmaps. Absent: `keep`. */
  readonly bitmaps?: BitmapsMode;
  /** `rebase`: trusts that the new backing file shows the same disk; copies nothing. */
  readonly unsafe: boolean;
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

/** An image whose meaning ends, and when: the `invalidate` step that names it comes after this. */
export interface Invalidation {
  readonly node: NodeId;
  /** One line for people: `the first write to base`. */
  readonly after: string;
}

/** One backing reference that will be rewritten. */
export interface Relink {
  readonly overlay: NodeId;
  /** Null: no backing file any more, or, where `to` names it, one that is not there. */
  readonly backing: NodeId | null;
  /** Null: there was none. */
  readonly from: BackingReference | null;
  readonly to: BackingReference | null;
}

/** What a job does to one file; bytes, data and metadata, upper bounds. */
export interface ImageCost {
  readonly node: NodeId;
  readonly written: number;
  /** Host space given back. */
  readonly freed: number;
}

/** Somebody in the pool who reads through an image that is touched. */
export interface Dependent {
  readonly path: string;
  /** The touched image it reads through, by path. */
  readonly through: string;
}

/** Something in the pool that could not be read, and may be or hide an image that reads through one that is touched. */
export interface Unreadable {
  readonly path: string;
  /** Code of the error. */
  readonly code: string;
  readonly reason: string;
}

/** One strategy that `auto` considered. */
export interface Candidate {
  readonly strategy: string;
  /** Why it cannot do it; null: it can, and the figures are its plan's. */
  readonly refused: string | null;
  readonly bytesWritten: number | null;
  readonly temporaryBytes: number | null;
  /** How many images lose their meaning. */
  readonly invalidated: number | null;
}

/**
 * What will be done, before anything is done: plain, versioned JSON. It can be shown, reviewed, stored, and run later; the
 * engine refuses it when an image changed since.
 */
export interface CommitPlan {
  readonly planVersion: 1;
  readonly strategy: { readonly name: string; readonly version: number };
  /** Why this strategy, when `auto` chose it, in one line, and what else it could have chosen. */
  readonly chosen: { readonly why: string; readonly candidates: readonly Candidate[] } | null;
  readonly request: CommitRequest;
  /** The chain, bottom first; then other images that are touched or lost, or a new backing chain (`rebase`), bottom first. */
  readonly images: readonly LayerFacts[];
  /** How many of `images` are the chain. */
  readonly chainLength: number;
  /** What each image reads through to as the job starts: its backing file's node, or null. */
  readonly links: Readonly<Record<NodeId, NodeId | null>>;
  /** Images opened for writing; all others are only read. */
  readonly writes: readonly NodeId[];
  /** Images that data is read from: while it is needed nobody else may write them. */
  readonly reads: readonly NodeId[];
  /** Images whose guest-visible content is the same after every step. */
  readonly preserves: readonly NodeId[];
  /** Images that stop representing any point in time. */
  readonly invalidates: readonly Invalidation[];
  /** Images outside the chain among them (paths); only when accepted. */
  readonly strands: readonly string[];
  /** Everyone in the pool who depends on an image that is touched. */
  readonly dependents: readonly Dependent[];
  /** `commit`: what may be or hide another of them; only when accepted. */
  readonly unreadable: readonly Unreadable[];
  /** Directories that were searched for them. */
  readonly pools: readonly string[];
  readonly relinks: readonly Relink[];
  /** `commit`: what becomes of the persistent dirty bitmaps of base. Absent, in a plan of an older version: they record. */
  readonly bitmaps?: readonly BitmapFate[];
  /** Base grows to this, in bytes; null: stays. */
  readonly growBaseTo: ByteLength | null;
  /** Explicit zeros in base past the end of a short top, so that longer overlays keep reading zeros; null: none needed. */
  readonly zeroTail: GuestRange | null;
  readonly cases: CaseBytes;
  /** Bytes that will be copied, and made zero by metadata, all images together. */
  readonly bytesToCopy: number;
  readonly bytesToZero: number;
  /** Upper bound of bytes written, all images together, data and metadata. */
  readonly bytesWrittenAtMost: number;
  /** The same for each image that is written. */
  readonly costs: readonly ImageCost[];
  /** Host space needed that is given back, or could be, at the end; bytes, at most. */
  readonly temporaryBytes: number;
  /** Images of which whole clusters will not be copied: where they go, the file system shares their blocks. */
  readonly shares: readonly NodeId[];
  /** Rough, from a short sample of reading; null: nothing to measure, or not asked for. */
  readonly estimatedSeconds: number | null;
}

/** What a plan knows of one of its images. */
export function factsIn({ images }: Pick<CommitPlan, 'images'>, node: NodeId | null): LayerFacts {
  const facts = images.find((one) => one.node === node);
  if (facts === undefined) throw new RangeError(`${node} is no image of the plan`);
  return facts;
}

/** Where an image of a plan lies. */
export function pathOf(plan: Pick<CommitPlan, 'images'>, node: NodeId): string {
  return factsIn(plan, node).path;
}
