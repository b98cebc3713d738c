import type { BackingReference, Extent, Image, ImageGeometry, ImageMark } from '@downfold/image';
import type { FileIdentity, OperationOptions } from '@downfold/storage';
import type { GuestRange } from '@downfold/units';

/** An image's place in a graph: short, stable for one plan and its journal, never a file name. */
export type NodeId = string;

/** What is known of one image without opening it again; plain JSON. */
export interface LayerFacts {
  readonly node: NodeId;
  /** Absolute, links resolved. */
  readonly path: string;
  readonly format: string;
  readonly identity: FileIdentity;
  readonly geometry: ImageGeometry;
  readonly backing: BackingReference | null;
  readonly mark: ImageMark | null;
  /** See `Image.fingerprint`. */
  readonly fingerprint: string;
  /** Bytes of the file. */
  readonly fileLength: number;
  /** Host bytes in use. */
  readonly allocated: number;
  /** Last modification, ns since 1970 as decimal text. */
  readonly modified: string;
}

/** One open layer. */
export interface ChainLayer {
  readonly facts: LayerFacts;
  readonly image: Image;
}

/** An open chain, bottom first: `layers[0]` has no backing file, the last one is the leaf. Closing it closes all layers. */
export interface OpenChain extends AsyncDisposable {
  readonly layers: readonly ChainLayer[];
}

/**
 * A run of the merged view of several layers. `owner` is the layer that decides, by its index or as the caller calls it; for
 * `unallocated` (no layer above the base decides) it is null. A `zero` that comes from the end of a short layer is owned by that layer.
 */
export type OwnedExtent<Owner = number> = Extent & { readonly owner: Owner | null };

/** Two ends of a chain, as indexes into `OpenChain.layers`: `base` exclusive (-1: nothing below), `top` inclusive. */
export interface Subchain {
  readonly base: number;
  readonly top: number;
}

/** Reads the merged allocation of a subchain; see `subchainExtents`. */
export type SubchainExtents = (
  subchain: Subchain,
  range: GuestRange,
  options?: OperationOptions,
) => AsyncIterable<readonly OwnedExtent[]>;
