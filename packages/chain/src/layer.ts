import type { BackingReference, Image, ImageGeometry, ImageMark } from '@downfold/image';
import type { FileIdentity, OperationOptions } from '@downfold/storage';
import type { GuestRange } from '@downfold/units';
import type { OwnedBatch } from './owned-batch.ts';

/** An image's place in a graph: short, stable for one plan and its journal, never a file name. */
export type NodeId = string;

/** What is known of an image's external data file: who it is, and whether it was written to. */
export interface DataFileFacts {
  readonly identity: FileIdentity;
  /** Bytes of the file. */
  readonly length: number;
  /** Last modification, ns since 1970 as decimal text. */
  readonly modified: string;
}

/** What is known of one image without opening it again; plain JSON. */
export interface LayerFacts {
  readonly node: NodeId;
  /** Absolute, links resolved. */
  readonly path: string;
  readonly format: string;
  readonly identity: FileIdentity;
  /** The external data file that its guest data is in; absent: it has none, or that was not opened. */
  readonly dataFile?: DataFileFacts;
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
) => AsyncIterable<OwnedBatch>;
