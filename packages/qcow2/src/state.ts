import type { ImageLimits } from '@downfold/image';
import type { Storage } from '@downfold/storage';
import type { Geometry } from './geometry.ts';
import type { Header } from './header.ts';
import type { L2Cache } from './l2-cache.ts';

/** What a host cluster holds when it holds metadata. */
export type MetadataKind =
  | 'L2 table'
  | 'refcount block'
  | 'refcount table'
  | 'L1 table'
  | 'snapshot table'
  | 'header';

/** One refcount block in memory. */
export interface RefcountBlock {
  readonly offset: number;
  readonly bytes: Uint8Array;
  dirty: boolean;
}

/** The refcount structure of an image open for writing. Changes stay in memory until the image is flushed. */
export interface Refcounts {
  /** The refcount table as words, two an entry. */
  table: Uint32Array;
  /** Entries of the table that changed since the last flush; all of them when `moved`. */
  readonly changed: Set<number>;
  /** Where a table that was grown will live; null while the header's is valid. */
  moved: { readonly offset: number; readonly clusters: number } | null;
  readonly blocks: Map<number, RefcountBlock>;
}

/** Clusters that lost a reference: their refcounts go down once the mapping without them is durable (W5). */
export interface Release {
  /** Byte of the first cluster. */
  readonly offset: number;
  readonly clusters: number;
}

/** What an image open for writing keeps beside its tables. */
export interface Writer {
  readonly refcounts: Refcounts;
  readonly metadata: Map<number, MetadataKind>;
  /** Number of the cluster that the search for free ones starts at. */
  nextFree: number;
  /** Waiting for the next flush. */
  releases: Release[];
  /** L1 entries changed since the last flush. */
  readonly l1Changed: Set<number>;
  /** Guest data was written since the last flush. */
  dataDirty: boolean;
  /** Autoclear bits that this writer cannot keep true were cleared (W8), or there were none. */
  autoclearDone: boolean;
  /** An overlap was found or a flush failed: no more writes. */
  poisoned: boolean;
  /** Ends of the queues: mutations run one after the other, so do flushes; the two overlap. */
  mutation: Promise<unknown>;
  flushing: Promise<unknown>;
}

/** Everything known of one open image; the operations are functions over it. */
export interface Qcow2State {
  readonly storage: Storage;
  /** How errors name the image. */
  readonly label: string;
  readonly limits: ImageLimits;
  readonly geometry: Geometry;
  /** As it stands in the file now. */
  header: Header;
  /** The header cluster's bytes as they stand in the file now. */
  headerCluster: Uint8Array;
  /** First byte after the file as far as this process knows: grows with its own writes. */
  fileEnd: number;
  /** Active L1 table as 32-bit words, two an entry. */
  l1: Uint32Array;
  readonly l2: L2Cache;
  /** The last compressed cluster that was read: its guest offset and content. */
  lastCompressed: { readonly at: number; readonly bytes: Uint8Array } | null;
  /** What only a writer needs; null when the image was opened for reading. */
  readonly writer: Writer | null;
  closed: boolean;
}
