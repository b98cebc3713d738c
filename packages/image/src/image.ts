import type { OpenMode, OperationOptions, Storage } from '@downfold/storage';
import type { ByteLength, GuestOffset, GuestRange } from '@downfold/units';
import type { Bitmaps } from './bitmaps.ts';
import type { CheckOptions, CheckReport } from './check.ts';
import type { ExtentBatch } from './extent-batch.ts';
import type { ExtentsOptions } from './holes.ts';
import type { ImageSecret } from './secret.ts';
import type { StageOptions, Staging, StagingToken } from './staging.ts';
import type { CowSource, ImageCopyPiece, ImageWriteOptions } from './write-options.ts';

/** Sizes of an image, in bytes. */
export interface ImageGeometry {
  /** What the guest sees. A size that was asked for may have been rounded up to a multiple of 512. */
  readonly virtualSize: ByteLength;
  /** Unit of host allocation; 1 for formats that have none. */
  readonly clusterSize: ByteLength;
  /** Smallest unit with an allocation status of its own: a subcluster, or the cluster. */
  readonly allocationGranularity: ByteLength;
}

/** What an image says of its backing file: a claim made by untrusted bytes. Only a resolver opens it. */
export interface BackingReference {
  /** As stored; relative names are relative to the directory of the image. */
  readonly name: string;
  /** Format name as stored; null when the image does not say. */
  readonly format: string | null;
}

/** Why an image no longer represents any point in time. Written into the image itself. */
export interface ImageMark {
  /**
   * `invalid`: what it shows is of no point in time, neither alone nor below others. `superseded`: another image took its place.
   * `mixed`: the same as invalid when read alone, but images that lay above it when it was marked read right through it.
   */
  readonly state: 'invalid' | 'superseded' | 'mixed';
  /** The job that did it. */
  readonly job: string;
  /** ISO 8601, UTC. */
  readonly date: string;
}

/** An internal snapshot: what the disk showed at one time, kept in the same file. */
export interface ImageSnapshot {
  readonly id: string;
  readonly name: string;
  /** Bytes of machine state that are kept with it. */
  readonly stateBytes: number;
  /** When it was taken: since 1970. */
  readonly seconds: number;
  readonly nanoseconds: number;
  /** The machine's clock, nanoseconds; instructions that had run (null: not counted). Decimal text: they may be above 2^53. */
  readonly clock: string;
  readonly instructions: string | null;
}

/** What an image says of itself that nobody needs in order to read it. Plain JSON. */
export interface ImageDescription {
  /** Opened for writing and not closed since: counts of clusters may be too low. */
  readonly dirty: boolean;
  /** Guest data is encrypted in the file. */
  readonly encrypted: boolean;
  readonly snapshots: readonly ImageSnapshot[];
  /** The format's own facts, as `qemu-img info` shows them under `format-specific.data`. */
  readonly specific: Readonly<Record<string, unknown>>;
}

/** Options of `Image.reclaimLeaks`. */
export interface ReclaimOptions extends OperationOptions {
  /** Clusters that this staging holds are not leaks. */
  readonly keep?: StagingToken | null;
}

/**
 * One open image: one layer of a virtual disk. It never opens and never reads its backing file.
 *
 * Durability: nothing is durable until `flush` resolves, except where a member says so. A crash at any moment
 * leaves the image consistent, with leaked clusters at the worst; data written since the last flush reads as
 * before or as written, never as foreign content.
 * Concurrency: members may be called while others run; overlapping writes are the caller's to serialise.
 * `flush` covers what had resolved when it was called, and does not wait for what came later.
 * After an error of a write or flush the image must be closed, and checked before it is used again.
 */
export interface Image extends AsyncDisposable {
  /** Format name, as written in other images' backing-format field. */
  readonly format: string;
  /** How errors name it: the storage's label. */
  readonly label: string;
  readonly writable: boolean;
  readonly geometry: ImageGeometry;
  readonly backing: BackingReference | null;
  /** Guest data is not in `data`'s file as the guest has it. */
  readonly encrypted: boolean;
  /** Zeros that hide the backing file have to be written as data. Absent: the format says them by metadata, where it has units of allocation. */
  readonly zeroesAsData?: boolean;
  readonly mark: ImageMark | null;
  /** What identifies this image's metadata: changes when its header does. CRC-32 of the header, as 8 hex digits. */
  readonly fingerprint: string;
  /** What it was before opening the image for writing mended it; absent, or null: that changed nothing. */
  readonly mendedFrom?: string | null;
  /** Its own file: who the image is. Not to be written. */
  readonly file: Storage;
  /** The file that `host` offsets of extents point into; for `Storage.copyFrom`. Not to be written. Most often its own. */
  readonly data: Storage;
  /**
   * For whoever reads bytes of `data` where extents said that they lie, without asking the image again: `gone` is called before any such place is given
   * to other bytes, or emptied, and awaited. It must not fail, nor call the image. Until then a place that an extent told shows what was there, unless
   * the image was written at these guest bytes. Null: this image cannot promise that. Absent: none of its format does.
   */
  beforeReuse?(gone: () => Promise<void>): Disposable | null;
  /** Its persistent dirty bitmaps; absent: the format has none. */
  readonly bitmaps?: Bitmaps;
  /** What else the image says of itself. @throws ImageError `IMAGE_CORRUPT` or `IMAGE_LIMIT` when that cannot be read */
  describe(): Promise<ImageDescription>;

  /**
   * The allocation of `range`: ordered, gapless, non-empty extents that cover exactly `range`, in batches (of about
   * one metadata table), merged into maximal runs within a batch.
   */
  extents(range: GuestRange, options?: ExtentsOptions): AsyncIterable<ExtentBatch>;
  /**
   * Fills `target` with this layer's bytes; `unallocated` parts are filled by `below`, or with zeros when it is null.
   * Rejects with `IMAGE_RANGE` past the virtual size.
   */
  read(
    offset: GuestOffset,
    target: Uint8Array,
    below: CowSource | null,
    options?: OperationOptions,
  ): Promise<void>;

  /** Writes guest bytes; what is compressed or shared with a snapshot is moved to fresh clusters first. */
  write(offset: GuestOffset, source: Uint8Array, options: ImageWriteOptions): Promise<void>;
  /**
   * As `write` for each piece, from other files; whole clusters do not pass through a buffer of the caller. Pieces do not
   * overlap; in one call, and in the order of the disk, they cost less than a call each. When it rejects, some may be written.
   */
  copyFrom(pieces: readonly ImageCopyPiece[], options: ImageWriteOptions): Promise<void>;
  /** The range reads as zeros and hides the backing file; by metadata where the format can. */
  writeZeroes(range: GuestRange, options: ImageWriteOptions): Promise<void>;
  /** Whether the disk can have `virtualSize` bytes, without changing anything. Absent: any. @throws ImageError `IMAGE_UNSUPPORTED` or `IMAGE_LIMIT` */
  assertCanGrow?(virtualSize: number): void;
  /**
   * The backing file shows again in every allocation unit that lies wholly in `range` (the last one may be cut by the end of
   * the disk); other bytes keep their content. Rejects with `IMAGE_UNSUPPORTED` when the format has no unallocated status.
   * The image orders it by itself: mapping durable, then refcounts, then host space is given back and reused.
   */
  deallocate(range: GuestRange, options?: OperationOptions): Promise<void>;
  /**
   * Grows the virtual disk; durable when it resolves. The new area reads as zeros. When `options.fill` is given there is a
   * backing file whose view reaches past the old end: the new area is made explicit zeros before the size changes, and
   * `fill` completes a last cluster that the old size cut. Shrinking rejects with `IMAGE_UNSUPPORTED`.
   */
  resize(virtualSize: ByteLength, options: ImageWriteOptions): Promise<void>;
  /**
   * Rewrites the backing reference, atomically and durably: after a crash the complete old or the complete new one is there.
   * The image's other writes must have been flushed. Rejects with `IMAGE_NO_ROOM` before it wrote anything.
   */
  setBacking(reference: BackingReference | null): Promise<void>;
  /** Rejects with `IMAGE_NO_ROOM` when `setBacking(reference)` would; writes nothing. */
  assertRoomFor(reference: BackingReference): Promise<void>;
  /** Marks the image, durably and atomically; `null` takes the mark away. `IMAGE_UNSUPPORTED` or `IMAGE_NO_ROOM` when it has no place. */
  setMark(mark: ImageMark | null): Promise<void>;
  /**
   * Barrier: all writes that resolved before the call, data and metadata in the format's safe order, are durable when it resolves.
   * Rejects with `IMAGE_READ_ONLY` when the image was opened for reading.
   */
  flush(): Promise<void>;
  /**
   * Gives back clusters that are counted but not referenced (leaks: what a crash between refcounts and mapping leaves); durable
   * when it resolves, with the number of clusters freed; 0 for formats that count nothing. Rejects with `IMAGE_CORRUPT`
   * when the check finds anything worse than leaks. The engine calls it on every image it is going to write when it resumes a job.
   */
  reclaimLeaks(options?: ReclaimOptions): Promise<number>;
  /**
   * Begins a staging, or goes on with one. One at a time. Rejects with `IMAGE_UNSUPPORTED`, saying why, when the format, or this image,
   * cannot be staged on.
   */
  stage(options: StageOptions): Promise<Staging>;
  /** Verifies the metadata. Never writes, but for a flush of what was written before. */
  check(options?: CheckOptions): Promise<CheckReport>;
}

/** Limits against hostile images; all have safe defaults. */
export interface ImageLimits {
  /** Bytes of metadata one image may hold in memory. Default 64 MiB. */
  readonly metadataBytes: ByteLength;
  /** Largest virtual size, in bytes. Default 64 TiB. */
  readonly virtualSize: ByteLength;
  /**
   * Iterations of hashing that trying a secret may cost, for all key slots together. Default 2^27, about half a minute; what QEMU makes by default takes
   * two seconds a slot.
   */
  readonly keyWork: number;
}

/** Options of opening an image. */
export interface OpenImageOptions extends OperationOptions {
  readonly mode: OpenMode;
  readonly limits?: Partial<ImageLimits>;
  /** Opens the image when it is encrypted. Absent or null: it is refused with `IMAGE_SECRET_NEEDED`, unless `allowLocked`. */
  readonly secret?: ImageSecret | null | undefined;
  /**
   * An encrypted image without a secret is opened all the same: it can be described, mapped, checked, relinked; what reads or writes guest data rejects
   * with `IMAGE_SECRET_NEEDED`. Default false.
   */
  readonly allowLocked?: boolean;
  /**
   * Opens the external data file that an image names, a claim made by untrusted bytes; the image closes it. Absent: an image that has one
   * is refused with `IMAGE_UNSUPPORTED`.
   */
  readonly openDataFile?: ((name: string, mode: OpenMode) => Promise<Storage>) | undefined;
}

/** Options of every format's `create`; formats extend it. */
export interface CreateImageOptions extends OperationOptions {
  /** Bytes. */
  readonly virtualSize: ByteLength;
  readonly backing?: BackingReference | null;
}

/** A format: opens and creates images on storage that the caller provides. */
export interface ImageFormat<Create extends CreateImageOptions = CreateImageOptions> {
  /** As written in backing-format fields: `qcow2`, `raw`. */
  readonly name: string;
  /** Abilities that not every format has; the compliance kit holds it to them and to refusing the rest. */
  readonly abilities: ReadonlySet<ImageAbility>;
  /** Whether a file that starts with `head` (>= 512 bytes, or the whole file) claims the format. Never used for what is written. */
  recognises(head: Uint8Array): boolean;
  /**
   * Resolves with a ready image that owns `storage` and closes it. On rejection `storage` stays open and is the caller's.
   * @throws ImageError; opening for reading never writes.
   */
  open(storage: Storage, options: OpenImageOptions): Promise<Image>;
  /** Writes a new image onto empty `storage`, durable when it resolves; owns it like `open`. */
  create(storage: Storage, options: Create): Promise<Image>;
}

/**
 * Abilities an image format, or a kind of image of it, may lack.
 * - `backing`: may have a backing file. Absent: `create` with one, `setBacking` and `assertRoomFor` reject with `IMAGE_UNSUPPORTED`.
 * - `zero`: has a zero status of its own. Absent: `writeZeroes` writes data, and no extent is `zero`.
 * - `deallocate`, `mark`, `stage`. Absent: `deallocate`, `setMark`, `stage` reject with `IMAGE_UNSUPPORTED`.
 * - `grow`: grows so that a crash at any moment leaves the old size, or zeros past the old end. Absent: `resize` to a larger size rejects with
 *   `IMAGE_UNSUPPORTED`.
 * - `check`: has metadata that can be wrong. Absent: `check` finds nothing.
 */
export type ImageAbility = 'backing' | 'zero' | 'deallocate' | 'grow' | 'mark' | 'check' | 'stage';
