import type { OperationOptions, Storage } from '@downfold/storage';
import {
  alignUp,
  type ByteLength,
  byteLength,
  type GuestOffset,
  type GuestRange,
  hostOffset,
  rangeBetween,
  rangeEnd,
  SECTOR_BYTES,
} from '@downfold/units';

import type { CheckOptions, CheckReport } from './check.ts';
import { ImageError, type ImageErrorCode } from './errors.ts';
import { type ExtentBatch, ExtentList } from './extent-batch.ts';
import { type ExtentsOptions, withHoles } from './holes.ts';
import type {
  BackingReference,
  Image,
  ImageDescription,
  ImageGeometry,
  ImageMark,
} from './image.ts';
import type { CowSource, ImageCopyPiece, ImageWriteOptions } from './write-options.ts';

/** Bytes that are written at a time. */
const STEP_BYTES = 4 << 20;

/** Of one that is encrypted: what its file is longer by decrypts to noise. */
const GROWTH_IN_ONE_STEP = 'growth that a crash leaves whole';

/** What a flat image is opened as. */
export interface FlatImageOptions {
  /** The format's name. */
  readonly format: string;
  /** The image owns it. */
  readonly file: Storage;
  /** The disk from its first byte on; most often the file. */
  readonly data: Storage;
  /** Byte of the file that the disk starts at. Default 0. */
  readonly start?: number;
  /** Bytes; the file may end up to 511 bytes earlier. */
  readonly virtualSize: number;
  readonly writable: boolean;
  readonly encrypted?: boolean;
  /** Default: that of what has no header. */
  readonly fingerprint?: string;
  /** What the format says of itself. */
  readonly specific?: ImageDescription['specific'];
}

/**
 * An image without a map: the disk lies in the file as it is, from one place on, in the clear or not. It has no backing file, no status but data, and
 * nothing that could be wrong.
 */
export class FlatImage implements Image {
  readonly format: string;
  readonly backing: BackingReference | null = null;
  readonly encrypted: boolean;
  readonly mark: ImageMark | null = null;
  readonly fingerprint: string;
  readonly file: Storage;
  readonly data: Storage;
  readonly writable: boolean;
  readonly #start: number;
  readonly #specific: ImageDescription['specific'];
  #virtualSize: number;
  #closed = false;

  constructor(options: FlatImageOptions) {
    this.format = options.format;
    this.file = options.file;
    this.data = options.data;
    this.writable = options.writable;
    this.encrypted = options.encrypted ?? false;
    this.fingerprint = options.fingerprint ?? '00000000';
    this.#start = options.start ?? 0;
    this.#specific = options.specific ?? {};
    this.#virtualSize = options.virtualSize;
  }

  get label(): string {
    return this.file.label;
  }
  get geometry(): ImageGeometry {
    const unit = byteLength(1);
    return {
      virtualSize: byteLength(this.#virtualSize),
      clusterSize: unit,
      allocationGranularity: unit,
    };
  }

  async describe(): Promise<ImageDescription> {
    return {
      dirty: false,
      encrypted: this.encrypted,
      snapshots: [],
      specific: this.#specific,
    };
  }

  async *extents(
    range: GuestRange,
    options?: ExtentsOptions,
  ): AsyncGenerator<ExtentBatch, void, undefined> {
    this.#assertRange(range);
    options?.signal?.throwIfAborted();
    if (range.length === 0) return;
    const whole = allData(range);
    if (options?.holes === undefined) yield* whole;
    else {
      const unit = options.holes;
      yield* withHoles(whole, this.data, { ...options, unit, end: this.#virtualSize });
    }
  }

  async read(
    offset: GuestOffset,
    target: Uint8Array,
    _below: CowSource | null,
    options?: OperationOptions,
  ): Promise<void> {
    this.#assertRange({ offset, length: byteLength(target.length) });
    await this.data.read(hostOffset(offset), target, options);
  }

  async write(offset: GuestOffset, source: Uint8Array, options: ImageWriteOptions): Promise<void> {
    this.#assertWritable({ offset, length: byteLength(source.length) });
    await this.data.write(hostOffset(offset), source, options);
  }

  async copyFrom(pieces: readonly ImageCopyPiece[], options: ImageWriteOptions): Promise<void> {
    for (const piece of pieces) this.#assertWritable(piece);
    await this.data.copyFrom(
      pieces.map(({ source, from, offset, length }) => ({
        source,
        from,
        to: hostOffset(offset),
        length,
      })),
      options,
    );
  }

  async writeZeroes(range: GuestRange, options: ImageWriteOptions): Promise<void> {
    this.#assertWritable(range);
    await this.data.writeZeroes(
      { offset: hostOffset(range.offset), length: range.length },
      options,
    );
  }

  deallocate(): Promise<void> {
    return this.#refuse('deallocation: they have no unallocated status');
  }

  /** New bytes read as zeros whatever lies below: the image hides it anyway. The disk is rounded up to sectors, the file only where it is not the disk. */
  async resize(virtualSize: ByteLength, options: ImageWriteOptions): Promise<void> {
    this.#assertChangeable(options);
    if (this.data !== this.file && virtualSize > this.#virtualSize)
      return this.#refuse(GROWTH_IN_ONE_STEP);
    await this.extend(virtualSize, options);
  }

  /** @throws ImageError `IMAGE_UNSUPPORTED` when `resize` could not make it so long */
  assertCanGrow(virtualSize: number): void {
    if (alignUp(virtualSize, SECTOR_BYTES) <= this.#virtualSize) return;
    if (this.data !== this.file) throw this.#unsupported(GROWTH_IN_ONE_STEP);
    if (!this.file.supports.resize) throw this.#unsupported('another length than their file has');
  }

  /**
   * As `resize`, of an image that is not its file too: after a crash before it resolves, the disk may be larger, and show noise past the old end. For
   * whoever knows of it.
   */
  async extend(virtualSize: ByteLength, options: OperationOptions = {}): Promise<void> {
    this.#assertChangeable(options);
    const size = alignUp(virtualSize, SECTOR_BYTES);
    if (size < this.#virtualSize) return this.#refuse('shrinking the virtual disk');
    // a file that ends inside its last sector is shorter than the disk
    if (size === this.#virtualSize && (await this.file.length()) >= this.#start + size) return;
    const end = Math.max(await this.file.length(), this.#endOf(virtualSize));
    await this.file.setLength(byteLength(end), options);
    // what the file is longer by is zeros, which decrypt to noise
    if (this.data !== this.file)
      await this.data.writeZeroes(rangeBetween(hostOffset(this.#virtualSize), size), options);
    await this.file.flush(`${this.format} W12: file length before size`);
    this.#virtualSize = size;
  }

  /** Cuts the end of the disk off; durable when it resolves. Sizes are rounded as by `resize`. */
  async shrink(virtualSize: ByteLength): Promise<void> {
    this.#assertChangeable();
    const size = Math.min(this.#virtualSize, alignUp(virtualSize, SECTOR_BYTES));
    if (virtualSize < this.#virtualSize)
      await this.file.setLength(byteLength(this.#endOf(virtualSize)));
    await this.file.flush(`${this.format}: the new end`);
    this.#virtualSize = size;
  }

  /** Where a file ends that holds so large a disk. What is encrypted is whole sectors. */
  #endOf(virtualSize: number): number {
    return this.data === this.file ? virtualSize : this.#start + alignUp(virtualSize, SECTOR_BYTES);
  }

  /** Gives all of a range a place in the file: holes are written as zeros. Nobody may write to it meanwhile. Durable after the next `flush`. */
  async preallocate(range: GuestRange, options?: OperationOptions): Promise<void> {
    this.#assertWritable(range);
    const zeros = new Uint8Array(Math.min(STEP_BYTES, range.length));
    const end = rangeEnd(range);
    for (let at: number = range.offset; at < end; ) {
      const run = await this.data.runAt(hostOffset(at), options);
      const stop = Math.min(end, run.end, at + STEP_BYTES);
      if (run.hole) await this.data.write(hostOffset(at), zeros.subarray(0, stop - at), options);
      at = run.hole ? stop : Math.min(end, run.end);
    }
  }

  setBacking(): Promise<void> {
    return this.#refuse('a backing file');
  }

  assertRoomFor(): Promise<void> {
    return this.#refuse('a backing file');
  }

  setMark(): Promise<void> {
    return this.#refuse('a mark in the image');
  }

  async flush(): Promise<void> {
    this.#assertChangeable();
    await this.data.flush(`${this.format} W6: data`);
  }

  stage(): Promise<never> {
    return this.#refuse('a second mapping to stage on');
  }

  async reclaimLeaks(options?: OperationOptions): Promise<number> {
    this.#assertChangeable(options);
    return 0;
  }

  /** There is no metadata: nothing can be wrong. */
  async check(options?: CheckOptions): Promise<CheckReport> {
    this.#assertOpen();
    options?.signal?.throwIfAborted();
    return {
      corruptions: 0,
      leaks: 0,
      totalClusters: 0,
      allocatedClusters: 0,
      fragmentedClusters: 0,
      compressedClusters: 0,
      imageEndOffset: await this.file.length(),
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    await this.file[Symbol.asyncDispose]();
  }

  #assertOpen(): void {
    if (this.#closed) throw this.#error('IMAGE_CLOSED', 'is closed');
  }

  #assertRange(range: GuestRange): void {
    this.#assertOpen();
    if (rangeEnd(range) > this.#virtualSize)
      throw this.#error(
        'IMAGE_RANGE',
        `${range.length} bytes at ${range.offset} reach past the virtual size of ${this.#virtualSize}`,
        range.offset,
      );
  }

  #assertWritable(range: GuestRange): void {
    this.#assertRange(range);
    this.#assertChangeable();
  }

  #assertChangeable(options?: OperationOptions): void {
    this.#assertOpen();
    if (!this.writable) throw this.#error('IMAGE_READ_ONLY', 'was opened for reading only');
    options?.signal?.throwIfAborted();
  }

  async #refuse(feature: string): Promise<never> {
    this.#assertOpen();
    throw this.#unsupported(feature);
  }

  #unsupported(feature: string): ImageError {
    return this.#error('IMAGE_UNSUPPORTED', `${this.format} images do not have ${feature}`);
  }

  #error(code: ImageErrorCode, problem: string, offset?: number): ImageError {
    return new ImageError(code, `${this.label}: ${problem}`, {
      image: this.label,
      ...(offset === undefined ? {} : { offset }),
    });
  }
}

async function* allData(range: GuestRange): AsyncGenerator<ExtentBatch, void, undefined> {
  yield ExtentList.of([{ ...range, status: 'data', host: hostOffset(range.offset) }]);
}
