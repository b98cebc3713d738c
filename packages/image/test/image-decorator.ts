import type { OperationOptions, Storage } from '@downfold/storage';
import type { ByteLength, GuestOffset, GuestRange } from '@downfold/units';
import type {
  BackingReference,
  CheckOptions,
  CheckReport,
  CowSource,
  ExtentBatch,
  Image,
  ImageCopyPiece,
  ImageDescription,
  ImageFormat,
  ImageGeometry,
  ImageMark,
  ImageWriteOptions,
  ReclaimOptions,
  StageOptions,
  Staging,
} from '../src/index.ts';

/** Passes everything on. */
export class ImageDecorator implements Image {
  protected readonly inner: Image;

  constructor(inner: Image) {
    this.inner = inner;
  }

  get format(): string {
    return this.inner.format;
  }
  get label(): string {
    return this.inner.label;
  }
  get writable(): boolean {
    return this.inner.writable;
  }
  get geometry(): ImageGeometry {
    return this.inner.geometry;
  }
  get backing(): BackingReference | null {
    return this.inner.backing;
  }
  get encrypted(): boolean {
    return this.inner.encrypted;
  }
  get mark(): ImageMark | null {
    return this.inner.mark;
  }
  get fingerprint(): string {
    return this.inner.fingerprint;
  }
  get file(): Storage {
    return this.inner.file;
  }
  get data(): Storage {
    return this.inner.data;
  }
  describe(): Promise<ImageDescription> {
    return this.inner.describe();
  }
  beforeReuse(gone: () => Promise<void>): Disposable | null {
    return this.inner.beforeReuse?.(gone) ?? null;
  }
  extents(range: GuestRange, options?: OperationOptions): AsyncIterable<ExtentBatch> {
    return this.inner.extents(range, options);
  }
  read(
    offset: GuestOffset,
    target: Uint8Array,
    below: CowSource | null,
    options?: OperationOptions,
  ): Promise<void> {
    return this.inner.read(offset, target, below, options);
  }
  write(offset: GuestOffset, source: Uint8Array, options: ImageWriteOptions): Promise<void> {
    return this.inner.write(offset, source, options);
  }
  copyFrom(pieces: readonly ImageCopyPiece[], options: ImageWriteOptions): Promise<void> {
    return this.inner.copyFrom(pieces, options);
  }
  writeZeroes(range: GuestRange, options: ImageWriteOptions): Promise<void> {
    return this.inner.writeZeroes(range, options);
  }
  deallocate(range: GuestRange, options?: OperationOptions): Promise<void> {
    return this.inner.deallocate(range, options);
  }
  resize(virtualSize: ByteLength, options: ImageWriteOptions): Promise<void> {
    return this.inner.resize(virtualSize, options);
  }
  setBacking(reference: BackingReference | null): Promise<void> {
    return this.inner.setBacking(reference);
  }
  assertRoomFor(reference: BackingReference): Promise<void> {
    return this.inner.assertRoomFor(reference);
  }
  setMark(mark: ImageMark | null): Promise<void> {
    return this.inner.setMark(mark);
  }
  flush(): Promise<void> {
    return this.inner.flush();
  }
  reclaimLeaks(options?: ReclaimOptions): Promise<number> {
    return this.inner.reclaimLeaks(options);
  }
  stage(options: StageOptions): Promise<Staging> {
    return this.inner.stage(options);
  }
  check(options?: CheckOptions): Promise<CheckReport> {
    return this.inner.check(options);
  }
  async [Symbol.asyncDispose](): Promise<void> {
    await this.inner[Symbol.asyncDispose]();
  }
}

/** `format` with every image that it opens or creates wrapped. */
export function decorated(
  format: ImageFormat,
  wrap: (image: Image, storage: Storage) => Image,
): ImageFormat {
  return {
    ...format,
    open: async (storage, options) => wrap(await format.open(storage, options), storage),
    create: async (storage, options) => wrap(await format.create(storage, options), storage),
  };
}
