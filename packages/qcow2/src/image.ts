import { crc32 } from 'node:zlib';
import {
  type BackingReference,
  type Bitmaps,
  type CheckOptions,
  type CheckReport,
  type CowSource,
  type ExtentBatch,
  type ExtentsOptions,
  type Image,
  type ImageCopyPiece,
  type ImageDescription,
  type ImageGeometry,
  type ImageMark,
  type ImageWriteOptions,
  type ReclaimOptions,
  type StageOptions,
  type Staging,
  withHoles,
} from '@downfold/image';
import type { OperationOptions, Storage } from '@downfold/storage';
import {
  type ByteLength,
  byteLength,
  type GuestOffset,
  type GuestRange,
  rangeEnd,
} from '@downfold/units';
import { type Amendment, amendImage } from './amend.ts';
import type { Change } from './autoclear.ts';
import { planBacking, setBackingReference } from './backing.ts';
import { Qcow2Bitmaps } from './bitmap-operations.ts';
import { closeBitmaps } from './bitmap-save.ts';
import { record } from './bitmap-set.ts';
import { assertOpen, changeImage } from './change.ts';
import { checkImage } from './check.ts';
import { assertWholeClusters, compressClusters, writeCompressed } from './compress.ts';
import { copyIntoImage } from './copy.ts';
import { imageError } from './corrupt.ts';
import { describeImage } from './describe.ts';
import { imageExtents } from './extents.ts';
import { flushImage, isMuchDirty } from './flush.ts';
import { setImageMark } from './mark.ts';
import { type Preallocation, preallocate } from './preallocate.ts';
import { readImage } from './read.ts';
import { reclaimLeaks } from './reclaim.ts';
import { assertCanGrow, growImage } from './resize.ts';
import { shrinkImage } from './shrink.ts';
import { Qcow2Snapshots, type Snapshots } from './snapshot-operations.ts';
import { stageImage } from './stage.ts';
import { assertNotStaged } from './stage-state.ts';
import type { Qcow2State } from './state.ts';
import { deallocateImage, zeroImage } from './unmap.ts';
import { writeImage } from './write.ts';
import { mutate, writerOf } from './writer.ts';

/** How a disk grows. */
export interface GrowOptions extends ImageWriteOptions {
  /** What of the new part gets its place in the file: before it is part of the disk, so that a failure leaves the disk as it was. */
  readonly preallocation?: Preallocation;
}

/** An open qcow2 image: what every image has, and what only this format has. */
export interface Qcow2 extends Image {
  resize(virtualSize: ByteLength, options: GrowOptions): Promise<void>;
  /** Its internal snapshots. */
  readonly snapshots: Snapshots;
  /**
   * Cuts the disk, atomically and durably; what lay past the new end is gone. Reads past it that are under way must be drained first.
   * @throws ImageError `IMAGE_RANGE` for a size above the present one; `IMAGE_UNSUPPORTED` for version 2 with internal snapshots
   */
  shrink(virtualSize: ByteLength): Promise<void>;
  /** Its persistent dirty bitmaps. */
  readonly bitmaps: Bitmaps;
  /** Gives the clusters of a range that have none their place in the file; the disk shows what it showed. Not durable until `flush`. */
  preallocate(range: GuestRange, mode: Preallocation, options?: OperationOptions): Promise<void>;
  /** Changes the version of the format (zero clusters become data for version 2), the width of refcounts, and lazy refcounts; durable when it resolves. */
  amend(amendment: Amendment): Promise<void>;
  /**
   * Writes whole clusters (the last one may be cut by the end of the disk) compressed as the image says; those that do not become smaller
   * are written as they are. `IMAGE_RANGE` for parts of clusters.
   */
  writeCompressed(
    offset: GuestOffset,
    source: Uint8Array,
    options?: OperationOptions,
  ): Promise<void>;
}

/** The `Image` contract over a state: checks ranges and modes, queues changes; the operations are in files of their own. */
export class Qcow2Image implements Qcow2 {
  readonly format = 'qcow2';
  readonly #state: Qcow2State;

  constructor(state: Qcow2State) {
    this.#state = state;
  }

  get label(): string {
    return this.#state.label;
  }
  get writable(): boolean {
    return this.#state.writer !== null;
  }
  get backing(): BackingReference | null {
    return this.#state.header.backing;
  }
  get encrypted(): boolean {
    return this.#state.luks !== null;
  }
  /** Version 2 knows no zeros: what is unallocated shows the backing file. */
  get zeroesAsData(): boolean {
    const { version, backing } = this.#state.header;
    return version === 2 && backing !== null;
  }
  get mark(): ImageMark | null {
    return this.#state.header.mark;
  }
  get file(): Storage {
    return this.#state.storage;
  }
  get data(): Storage {
    return this.#state.data;
  }
  get geometry(): ImageGeometry {
    const { clusterSize, unitSize } = this.#state.geometry;
    return {
      virtualSize: byteLength(this.#state.header.size),
      clusterSize: byteLength(clusterSize),
      allocationGranularity: byteLength(unitSize),
    };
  }
  get fingerprint(): string {
    return fingerprintOf(this.#state.headerCluster);
  }
  get mendedFrom(): string | null {
    const { mendedFrom } = this.#state;
    return mendedFrom === null ? null : fingerprintOf(mendedFrom);
  }

  get bitmaps(): Bitmaps {
    return new Qcow2Bitmaps(this.#state);
  }
  get snapshots(): Snapshots {
    return new Qcow2Snapshots(this.#state, (view) => new Qcow2Image(view));
  }

  async describe(): Promise<ImageDescription> {
    return describeImage(this.#state);
  }

  /** Null with an external data file: what is let go of it is emptied at once. */
  beforeReuse(gone: () => Promise<void>): Disposable | null {
    const { writer, external } = this.#state;
    if (writer === null || external !== null) return null;
    writer.beforeReuse.add(gone);
    return { [Symbol.dispose]: () => void writer.beforeReuse.delete(gone) };
  }

  async *extents(
    range: GuestRange,
    options?: ExtentsOptions,
  ): AsyncGenerator<ExtentBatch, void, undefined> {
    this.#assertRange(range);
    const { virtualSize: end, clusterSize } = this.geometry;
    const extents = imageExtents(this.#state, range, options);
    if (options?.holes === undefined) yield* extents;
    else {
      // finer ones are of clusters that were written in part: to tell of them would cut the disk in pieces
      const unit = Math.max(options.holes, clusterSize);
      yield* withHoles(extents, this.data, { ...options, unit, end });
    }
  }

  async read(
    offset: GuestOffset,
    target: Uint8Array,
    below: CowSource | null,
    options?: OperationOptions,
  ): Promise<void> {
    this.#assertRange({ offset, length: byteLength(target.length) });
    await readImage(this.#state, offset, target, below, options);
  }

  async write(offset: GuestOffset, source: Uint8Array, options: ImageWriteOptions): Promise<void> {
    const range = { offset, length: byteLength(source.length) };
    await this.#change(range, options, (state) => writeImage(state, offset, source, options.fill));
  }

  async copyFrom(pieces: readonly ImageCopyPiece[], options: ImageWriteOptions): Promise<void> {
    for (const piece of pieces) this.#assertRange(piece);
    writerOf(this.#state);
    for (let left = pieces.filter(({ length }) => length > 0); left.length > 0; ) {
      const done = await this.#mutate('disk', options, (state) => {
        for (const piece of left) record(state, piece.offset, rangeEnd(piece));
        return copyIntoImage(state, left, options.fill);
      });
      left = left.slice(done);
      await this.#flushWhenMuchIsDirty();
    }
  }

  async writeCompressed(
    offset: GuestOffset,
    source: Uint8Array,
    options?: OperationOptions,
  ): Promise<void> {
    const range = { offset, length: byteLength(source.length) };
    this.#assertRange(range);
    assertWholeClusters(this.#state, range);
    const clusters = await compressClusters(this.#state, source);
    await this.#change(range, options, (state) => writeCompressed(state, offset, clusters));
  }

  async writeZeroes(range: GuestRange, options: ImageWriteOptions): Promise<void> {
    await this.#change(range, options, (state) =>
      zeroImage(state, range.offset, rangeEnd(range), options),
    );
  }

  async deallocate(range: GuestRange, options?: OperationOptions): Promise<void> {
    await this.#change(range, options, (state) =>
      deallocateImage(state, range.offset, rangeEnd(range)),
    );
  }

  assertCanGrow(virtualSize: number): void {
    assertCanGrow(this.#state, virtualSize);
  }

  async resize(virtualSize: ByteLength, options: GrowOptions): Promise<void> {
    await this.#mutate('disk', options, (state) =>
      growImage(state, virtualSize, options.fill, options.preallocation),
    );
  }

  async shrink(virtualSize: ByteLength): Promise<void> {
    await this.#mutate('disk', undefined, (state) => shrinkImage(state, virtualSize));
  }

  async preallocate(
    range: GuestRange,
    mode: Preallocation,
    options?: OperationOptions,
  ): Promise<void> {
    this.#assertRange(range);
    await this.#mutate('header', options, (state) =>
      preallocate(state, range.offset, rangeEnd(range), mode),
    );
  }

  async amend(amendment: Amendment): Promise<void> {
    await this.#mutate('header', undefined, (state) => amendImage(state, amendment));
  }

  async setBacking(reference: BackingReference | null): Promise<void> {
    await this.#mutate('header', undefined, (state) => setBackingReference(state, reference));
  }

  async assertRoomFor(reference: BackingReference): Promise<void> {
    assertOpen(this.#state);
    planBacking(this.#state, reference);
  }

  async setMark(mark: ImageMark | null): Promise<void> {
    await this.#mutate('header', undefined, (state) => setImageMark(state, mark));
  }

  async flush(): Promise<void> {
    assertOpen(this.#state);
    writerOf(this.#state);
    await flushImage(this.#state.staged ?? this.#state);
  }

  stage(options: StageOptions): Promise<Staging> {
    return this.#mutate('header', options, (state) =>
      stageImage(state, options, (mapping) => new Qcow2Image(mapping)),
    );
  }

  async reclaimLeaks(options?: ReclaimOptions): Promise<number> {
    assertOpen(this.#state);
    writerOf(this.#state);
    return mutate(this.#state, async () => {
      assertNotStaged(this.#state);
      return reclaimLeaks(this.#state, options);
    });
  }

  async check(options?: CheckOptions): Promise<CheckReport> {
    assertOpen(this.#state);
    const state = this.#state;
    if (state.writer === null) return checkImage(state, options);
    writerOf(state);
    // what is in the file is whole when nothing changes in memory and all of that was written
    return mutate(state, async () => {
      await flushImage(state.staged ?? state);
      return checkImage(state, options);
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const { closed, writer, storage, data, external, ownsFile } = this.#state;
    if (closed) return;
    this.#state.closed = true;
    if (!ownsFile) return;
    try {
      if (writer !== null) {
        await Promise.all(Object.values(writer.ends));
        await closeBitmaps(this.#state);
      }
    } finally {
      await using _file = storage;
      await using _external = external;
      // what decrypts a file is not the file; closing one twice is closing it once
      await using _data = data;
    }
  }

  /** Changes `range` in its turn; when much metadata waits to be written, a flush follows. */
  async #change(
    range: GuestRange,
    options: OperationOptions | undefined,
    work: (state: Qcow2State) => Promise<void>,
  ): Promise<void> {
    this.#assertRange(range);
    writerOf(this.#state);
    if (range.length === 0) return;
    await this.#mutate('disk', options, (state) => {
      record(state, range.offset, rangeEnd(range));
      return work(state);
    });
    await this.#flushWhenMuchIsDirty();
  }

  async #flushWhenMuchIsDirty(): Promise<void> {
    if (isMuchDirty(this.#state)) await flushImage(this.#state);
  }

  #mutate<T>(
    change: Change,
    options: OperationOptions | undefined,
    work: (state: Qcow2State) => Promise<T>,
  ): Promise<T> {
    return changeImage(this.#state, change, options, () => work(this.#state));
  }

  #assertRange(range: GuestRange): void {
    assertOpen(this.#state);
    if (rangeEnd(range) <= this.#state.header.size) return;
    throw imageError(
      'IMAGE_RANGE',
      this.label,
      `${range.length} bytes reach past the virtual size of ${this.#state.header.size}`,
      range.offset,
    );
  }
}

function fingerprintOf(headerCluster: Uint8Array): string {
  return crc32(headerCluster).toString(16).padStart(8, '0');
}
