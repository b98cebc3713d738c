import type { NodeId } from '@downfold/chain';
import type { BackingReference } from '@downfold/image';
import type { ByteLength, GuestRange, HostOffset } from '@downfold/units';

/**
 * Where a strategy is: plain JSON, meaningful to the strategy alone. The engine stores it and hands it back. Only `complete: true` means
 * something to the engine: all data is where it shall be, so sources may change from here on and the job is not given up any more.
 */
export type Cursor = Readonly<Record<string, string | number | boolean | null>>;

/**
 * The whole vocabulary of a strategy; closed. Each step is idempotent: doing it twice is doing it once.
 * `copy` and `zero` run in parallel and in any order until the next step of another kind, so they must not touch what another one
 * before it reads or writes. Every other step begins when all before it are done, and the last checkpoint is durable.
 */
export type Step =
  /** The virtual disk of `node` becomes at least `virtualSize`; the new area reads as zeros. Durable before the next step. */
  | { readonly do: 'grow'; readonly node: NodeId; readonly virtualSize: ByteLength }
  /**
   * `range` of `to` gets the bytes that `from` itself holds there. `host`: where they lie in its file; null: not plainly (compressed).
   * `unlike`: instead, `to` gets what it shows now, where the disk that this node (null: zeros) shows differs from that.
   */
  | {
      readonly do: 'copy';
      readonly from: NodeId;
      readonly to: NodeId;
      readonly range: GuestRange;
      readonly host: HostOffset | null;
      readonly unlike?: NodeId | null;
    }
  /** `range` of `node` becomes explicit zeros. */
  | { readonly do: 'zero'; readonly node: NodeId; readonly range: GuestRange }
  /** `range` of `node` becomes unallocated. Only after a barrier over what its content was copied to. */
  | { readonly do: 'deallocate'; readonly node: NodeId; readonly range: GuestRange }
  /** Everything before is durable in `nodes` before anything after is issued. */
  | { readonly do: 'barrier'; readonly nodes: readonly NodeId[] }
  /** From the next step on these nodes may stop representing any point in time. The journal knows it before. */
  | { readonly do: 'invalidate'; readonly nodes: readonly NodeId[] }
  /** From here on writes to `node` go to a staging: `node` itself does not change before `publish`. */
  | {
      readonly do: 'stage';
      readonly node: NodeId;
      readonly virtualSize: ByteLength;
      readonly keepUndo: boolean;
    }
  /** What was staged on `node` becomes its content, durably and atomically, after a barrier over `node`. A staging that is published takes no more writes. */
  | { readonly do: 'publish'; readonly node: NodeId; readonly keepUndo: boolean }
  /**
   * `overlay`'s backing file becomes `backing` (null: none), durably and atomically, after a barrier over both. From the first one on images
   * outside the chain are closed, unless they are relinked themselves.
   */
  | {
      readonly do: 'relink';
      readonly overlay: NodeId;
      readonly backing: NodeId | null;
      readonly reference: BackingReference | null;
    }
  /**
   * `from`, the active layer of a disk in use, is what the disk shows; `to` becomes so, and is kept so until the user ends it: then the disk is on
   * `to`, or, where the user wants only a copy, the job is over. All before is durable in `to`.
   */
  | { readonly do: 'pivot'; readonly from: NodeId; readonly to: NodeId }
  /** `node` no longer represents any point in time and is marked so, in the file or beside it; after an `invalidate` that names it. */
  | { readonly do: 'retire'; readonly node: NodeId }
  /** A place to go on from: durable in the journal once everything before it is durable. */
  | { readonly do: 'checkpoint'; readonly cursor: Cursor };
