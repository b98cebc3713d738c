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
} from '@downfold/image';
import { ImageError, type ImageErrorCode } from '@downfold/image';
import type { OperationOptions, Storage } from '@downfold/storage';
import {
  alignUp,
  type ByteLength,
  byteLength,
  type GuestOffset,
  type GuestRange,
  hostOffset,
  rangeEnd,
} from '@downfold/units';

/** Unit of virtual sizes. A file that ends inside a sector reads as if zeros completed it, as in QEMU. */
export const SECTOR_BYTES = 512;

/** What a raw image is opened as. */
export interface RawImageOptions {
  /** Bytes; the file may end up to 511 bytes earlier. */
  readonly virtualSize: number;
  readonly writable: boolean;
}

/** A raw image: the file is the disk. Guest offsets are host offsets. */
export class RawImage implements Image {
  readonly format = 'raw';
  readonly backing: BackingReference | null = null;
  readonly mark: ImageMark | null = null;
  /** Raw files have no header. */
  readonly fingerprint = '00000000';
  readonly file: Storage;
  readonly data: Storage;
  readonly writable: boolean;
  #virtualSize: number;
  #closed = false;

  constructor(storage: Storage, { virtualSize, writable }: RawImageOptions) {
    this.file = storage;
    this.data = storage;
    this.writable = writable;
    this.#virtualSize = virtualSize;
  }

  get label(): string {
    return this.data.label;
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
    return { dirty: false, snapshots: [], specific: {} };
  }

  async *extents(
    range: GuestRange,
    options?: OperationOptions,
  ): AsyncGenerator<readonly Extent[], void, undefined> {
    this.#assertRange(range);
    options?.signal?.throwIfAborted();
    if (range.length > 0) yield [{ ...range, status: 'data', host: hostOffset(range.offset) }];
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
    return this.#refuse('deallocation: a raw image has no unallocated status');
  }

  /** New bytes read as zeros whatever lies below: a raw image hides it anyway. Sizes are rounded up to sectors. */
  async resize(virtualSize: ByteLength, options: ImageWriteOptions): Promise<void> {
    this.#assertChangeable(options);
    const size = alignUp(virtualSize, SECTOR_BYTES);
    if (size < this.#virtualSize) return this.#refuse('shrinking the virtual disk');
    if (size === this.#virtualSize) return;
    await this.data.setLength(size, options);
    await this.data.flush('raw W12: file length before size');
    this.#virtualSize = size;
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
    await this.data.flush('raw W6: data');
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
      imageEndOffset: await this.data.length(),
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    await this.data[Symbol.asyncDispose]();
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
    throw this.#error('IMAGE_UNSUPPORTED', `raw images do not have ${feature}`);
  }

  #error(code: ImageErrorCode, problem: string, offset?: number): ImageError {
    return new ImageError(code, `${this.label}: ${problem}`, {
      image: this.label,
      ...(offset === undefined ? {} : { offset }),
    });
  }
}
