import type { ImageLimits } from '@downfold/image';
import type { LuksHeader } from '@downfold/luks';
import type { Storage } from '@downfold/storage';
import type { BitmapSet } from './bitmap-types.ts';
import type { Geometry } from './geometry.ts';
import type { Header } from './header.ts';
import type { L2Table } from './l2-table.ts';
import type { MetadataCache } from './metadata-cache.ts';

/** What a host cluster holds when it holds metadata. */
export type MetadataKind =
  | 'L2 table'
  | 'refcount block'
  | 'refcount table'
  | 'L1 table'
  | 'snapshot table'
  | 'bitmap directory'
  | 'encryption header'
  | 'header';

/** One refcount block in memory. */
export interface RefcountBlock {
  /** Number of the block: it counts clusters from `index * refcountsPerBlock` on. */
  readonly index: number;
  readonly offset: number;
  readonly bytes: Uint8Array;
  changed: boolean;
  /** Clusters of the block (1 each) that are free but not to be taken before the release that freed them is over (W5). */
  held: Uint8Array | null;
}

/** The refcount structure of an image open for writing. Changes stay in memory until the image is flushed. */
export interface Refcounts {
  /** The refcount table as words, two an entry. */
  table: Uint32Array;
  /** Entries of the table that changed since the last flush; all of them when `moved`. */
  readonly changed: Set<number>;
  /** Where a table that was grown will live; null while the header's is valid. */
  moved: { readonly offset: number; readonly clusters: number } | null;
  readonly blocks: MetadataCache<RefcountBlock>;
}

/** Clusters that lost references: their refcounts go down once the mapping without them is durable (W5). */
export interface Release {
  /** Byte of the first cluster. */
  readonly offset: number;
  clusters: number;
  /** How many references each of them lost. */
  readonly references: number;
}

/** Queues of a writer. Who waits in one may hold those before it, never those after it. */
export type Queue = 'mutation' | 'flush' | 'header';

/** What an image open for writing keeps beside its tables. */
export interface Writer {
  refcounts: Refcounts;
  metadata: Map<number, MetadataKind>;
  /** Number of the cluster that the search for free ones starts at. */
  nextFree: number;
  /** Waiting for the next flush. */
  releases: Release[];
  /** Reads of guest data under way: they may still look at clusters that were released meanwhile. */
  readonly reads: Set<Promise<void>>;
  /** Called before released clusters are given to others, and awaited: who else may look at them. */
  readonly beforeReuse: Set<() => Promise<void>>;
  /** L1 entries changed since the last flush. */
  readonly l1Changed: Set<number>;
  /** Where the next compressed cluster goes: a byte inside a cluster that holds others; 0: to a fresh one. */
  compressedAt: number;
  /** Guest data was written since the last flush, or nobody knows. */
  dataDirty: boolean;
  readonly bitmaps: BitmapSet;
  /** Why there are no more writes: an overlap was found, a flush or a write of the header failed. */
  failure: unknown;
  /** Ends of the queues. Mutations change tables in memory, flushes write them; the two overlap. */
  readonly ends: Record<Queue, Promise<unknown>>;
}

/** Everything known of one open image; the operations are functions over it. */
export interface Qcow2State {
  /** The image's own file: all metadata. */
  readonly storage: Storage;
  /** Guest data as the guest has it: the same file, or an external one, or what one of them decrypts to. */
  readonly data: Storage;
  /** The external file of guest data, in which every guest byte has its own place; null: there is none. */
  readonly external: Storage | null;
  /** How guest data is encrypted; null: it is not. */
  readonly luks: LuksHeader | null;
  /** How errors name the image. */
  readonly label: string;
  readonly limits: ImageLimits;
  /** It is read to be mended: of its snapshot table is taken what a repair leaves in it (snapshot-mend.ts), where others refuse it. */
  readonly mending: boolean;
  /** Its header cluster, when opening it for writing repaired it; null: that changed nothing. */
  readonly mendedFrom: Uint8Array | null;
  /** The width of refcounts may be amended; all else stays. */
  geometry: Geometry;
  /** As it stands in the file now. */
  header: Header;
  /** The header cluster's bytes as they stand in the file now. */
  headerCluster: Uint8Array;
  /** First byte after the file as far as this process knows: grows with its own writes. */
  fileEnd: number;
  /** Active L1 table as 32-bit words, two an entry. */
  l1: Uint32Array;
  l2: MetadataCache<L2Table>;
  /**
   * The last compressed cluster that was read: its guest offset and content. Forgotten when that cluster is compressed anew; one that
   * is written otherwise is not compressed any more.
   */
  lastCompressed: { readonly at: number; readonly bytes: Uint8Array } | null;
  /** How many clusters were compressed by this state: a read that one of them overtook is not `lastCompressed`. */
  compressedAnew: number;
  /** What only a writer needs; null when the image was opened for reading. */
  readonly writer: Writer | null;
  /** The mapping that is staged on this one, which does not change meanwhile (stage.ts). */
  staged: Qcow2State | null;
  /** The image that this mapping is staged on; null: it is the image's own. */
  readonly stagedOn: Qcow2State | null;
  closed: boolean;
  /** Closing the image closes the file: it is no view of an image that is open as well. */
  readonly ownsFile: boolean;
}
