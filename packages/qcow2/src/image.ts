import { crc32 } from 'node:zlib';
import type {
  BackingReference,
  CheckOptions,
  CheckReport,
  CowSource,
  Extent,
  Image,
  ImageGeometry,
  ImageMark,
  ImageWriteOptions,
} from '@downfold/image';
import type { OperationOptions, Storage } from '@downfold/storage';
import {
  type ByteLength,
  byteLength,
  type GuestOffset,
  type GuestRange,
  type HostOffset,
  rangeEnd,
} from '@downfold/units';
import { writerOf } from './allocate.ts';
import { claimAutoclear } from './autoclear.ts';
import { assertRoomForBacking, setBackingReference } from './backing.ts';
import { checkImage } from './check.ts';
import { imageError } from './corrupt.ts';
import { describeImage } from './describe.ts';
import { imageExtents } from './extents.ts';
import { DIRTY_LIMIT_BYTES, dirtyBytes, flushImage } from './flush.ts';
import { setImageMark } from './mark.ts';
import { mutate } from './mutate.ts';
import { readImage } from './read.ts';
import { reclaimLeaks } from './reclaim.ts';
import { growImage } from './resize.ts';
import type { Qcow2State, Writer } from './state.ts';
import { deallocateImage, zeroImage } from './unmap.ts';
import { writeImage } from './write.ts';

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

  describe(): Readonly<Record<string, unknown>> {
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
    await this.#change(range, options, (state) =>
      writeImage(state, offset, source.length, { bytes: source }, options.fill),
    );
  }

  async copyFrom(
    source: Storage,
    from: HostOffset,
    offset: GuestOffset,
    length: ByteLength,
    options: ImageWriteOptions,
  ): Promise<void> {
    await this.#change({ offset, length }, options, (state) =>
      writeImage(state, offset, length, { storage: source, from }, options.fill),
    );
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
    await this.#prepare(options);
    await growImage(this.#state, virtualSize, options.fill);
  }

  async setBacking(reference: BackingReference | null): Promise<void> {
    await this.#prepare();
    await setBackingReference(this.#state, reference);
  }

  async assertRoomFor(reference: BackingReference): Promise<void> {
    this.#assertOpen();
    assertRoomForBacking(this.#state, reference);
  }

  async setMark(mark: ImageMark | null): Promise<void> {
    await this.#prepare();
    await setImageMark(this.#state, mark);
  }

  async flush(): Promise<void> {
    this.#assertOpen();
    await flushImage(this.#state, writerOf(this.#state));
  }

  async reclaimLeaks(options?: OperationOptions): Promise<number> {
    this.#assertOpen();
    return reclaimLeaks(this.#state, options);
  }

  async check(options?: CheckOptions): Promise<CheckReport> {
    this.#assertOpen();
    if (this.#state.writer !== null) await this.flush();
    return checkImage(this.#state, options);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#state.closed) return;
    this.#state.closed = true;
    await this.#state.writer?.flushing;
    await this.#state.storage[Symbol.asyncDispose]();
  }

  /** Runs a change of `range` in the queue; when much metadata waits to be written, a flush follows. */
  async #change(
    range: GuestRange,
    options: OperationOptions | undefined,
    work: (state: Qcow2State) => Promise<void>,
  ): Promise<void> {
    this.#assertRange(range);
    const writer = await this.#prepare(options);
    if (range.length === 0) return;
    await mutate(writer, () => work(this.#state));
    if (dirtyBytes(this.#state, writer) > DIRTY_LIMIT_BYTES) await flushImage(this.#state, writer);
  }

  /** What goes before every change: it may be refused, and autoclear bits go first. */
  async #prepare(options?: OperationOptions): Promise<Writer> {
    this.#assertOpen();
    options?.signal?.throwIfAborted();
    const writer = writerOf(this.#state);
    if (!writer.autoclearDone) await mutate(writer, () => claimAutoclear(this.#state, writer));
    this.#state.lastCompressed = null;
    return writer;
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
