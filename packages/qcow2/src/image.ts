import { crc32 } from 'node:zlib';
import type {
  BackingReference,
  CheckOptions,
  CheckReport,
  CowSource,
  Extent,
  Image,
  ImageCopyPiece,
  ImageDescription,
  ImageGeometry,
  ImageMark,
  ImageWriteOptions,
  ReclaimOptions,
  StageOptions,
  Staging,
} from '@downfold/image';
import type { OperationOptions, Storage } from '@downfold/storage';
import {
  type ByteLength,
  byteLength,
  type GuestOffset,
  type GuestRange,
  rangeEnd,
} from '@downfold/units';
import { type Change, claims, disclaim } from './autoclear.ts';
import { planBacking, setBackingReference } from './backing.ts';
import { checkImage } from './check.ts';
import { copyIntoImage } from './copy.ts';
import { imageError } from './corrupt.ts';
import { describeImage } from './describe.ts';
import { imageExtents } from './extents.ts';
import { flushImage, isMuchDirty } from './flush.ts';
import { setImageMark } from './mark.ts';
import { readImage } from './read.ts';
import { reclaimLeaks } from './reclaim.ts';
import { growImage } from './resize.ts';
import { stageImage } from './stage.ts';
import { assertNotStaged } from './stage-state.ts';
import type { Qcow2State } from './state.ts';
import { deallocateImage, zeroImage } from './unmap.ts';
import { writeImage } from './write.ts';
import { mutate, writerOf } from './writer.ts';

/** The `Image` contract over a state: checks ranges and modes, queues changes; the operations are in files of their own. */
export class Qcow2Image implements Image {
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
  get mark(): ImageMark | null {
    return this.#state.header.mark;
  }
  get data(): Storage {
    return this.#state.storage;
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
    return crc32(this.#state.headerCluster).toString(16).padStart(8, '0');
  }

  async describe(): Promise<ImageDescription> {
    return describeImage(this.#state);
  }

  async *extents(
    range: GuestRange,
    options?: OperationOptions,
  ): AsyncGenerator<readonly Extent[], void, undefined> {
    this.#assertRange(range);
    yield* imageExtents(this.#state, range, options);
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
      const done = await this.#mutate('disk', options, (state) =>
        copyIntoImage(state, left, options.fill),
      );
      left = left.slice(done);
      await this.#flushWhenMuchIsDirty();
    }
  }

  async writeZeroes(range: GuestRange, options: ImageWriteOptions): Promise<void> {
    await this.#change(range, options, (state) =>
      zeroImage(state, range.offset, rangeEnd(range), options.fill),
    );
  }

  async deallocate(range: GuestRange, options?: OperationOptions): Promise<void> {
    await this.#change(range, options, (state) =>
      deallocateImage(state, range.offset, rangeEnd(range)),
    );
  }

  async resize(virtualSize: ByteLength, options: ImageWriteOptions): Promise<void> {
    await this.#mutate('disk', options, (state) => growImage(state, virtualSize, options.fill));
  }

  async setBacking(reference: BackingReference | null): Promise<void> {
    await this.#mutate('header', undefined, (state) => setBackingReference(state, reference));
  }

  async assertRoomFor(reference: BackingReference): Promise<void> {
    this.#assertOpen();
    planBacking(this.#state, reference);
  }

  async setMark(mark: ImageMark | null): Promise<void> {
    await this.#mutate('header', undefined, (state) => setImageMark(state, mark));
  }

  async flush(): Promise<void> {
    this.#assertOpen();
    writerOf(this.#state);
    await flushImage(this.#state.staged ?? this.#state);
  }

  stage(options: StageOptions): Promise<Staging> {
    return this.#mutate('disk', options, (state) =>
      stageImage(state, options, (mapping) => new Qcow2Image(mapping)),
    );
  }

  async reclaimLeaks(options?: ReclaimOptions): Promise<number> {
    this.#assertOpen();
    writerOf(this.#state);
    return mutate(this.#state, async () => {
      assertNotStaged(this.#state);
      return reclaimLeaks(this.#state, options);
    });
  }

  async check(options?: CheckOptions): Promise<CheckReport> {
    this.#assertOpen();
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
    const { closed, writer, storage } = this.#state;
    if (closed) return;
    this.#state.closed = true;
    if (writer !== null) await Promise.all(Object.values(writer.ends));
    await storage[Symbol.asyncDispose]();
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
    await this.#mutate('disk', options, work);
    await this.#flushWhenMuchIsDirty();
  }

  async #flushWhenMuchIsDirty(): Promise<void> {
    if (isMuchDirty(this.#state)) await flushImage(this.#state);
  }

  /** Runs a change in its turn. It may be refused, and what it makes untrue goes first. */
  async #mutate<T>(
    change: Change,
    options: OperationOptions | undefined,
    work: (state: Qcow2State) => Promise<T>,
  ): Promise<T> {
    const state = this.#state;
    this.#assertOpen();
    options?.signal?.throwIfAborted();
    writerOf(state);
    return mutate(state, async () => {
      assertNotStaged(state);
      if (claims(state, change)) await disclaim(state, change);
      return work(state);
    });
  }

  #assertOpen(): void {
    if (this.#state.closed) throw imageError('IMAGE_CLOSED', this.label, 'is closed');
  }

  #assertRange(range: GuestRange): void {
    this.#assertOpen();
    if (rangeEnd(range) <= this.#state.header.size) return;
    throw imageError(
      'IMAGE_RANGE',
      this.label,
      `${range.length} bytes reach past the virtual size of ${this.#state.header.size}`,
      range.offset,
    );
  }
}
