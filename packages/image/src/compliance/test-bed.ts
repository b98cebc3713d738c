import type { SubjectFactory } from '@downfold/compliance';
import type { Storage, StorageBackend } from '@downfold/storage';
import { alignDown, byteLength, hostOffset } from '@downfold/units';
import type {
  BackingReference,
  CreateImageOptions,
  Image,
  ImageAbility,
  ImageFormat,
} from '../image.ts';
import { fillContent } from './content.ts';
import { ImageFile } from './image-file.ts';
import { type CopySource, Layer } from './layer.ts';

const KIB = 1024;

/** The backing file that backed images name. Nothing opens it. */
export const BACKING: BackingReference = { name: 'below.img', format: 'raw' };

/** What the kit is run on. */
export interface ImageSubject<Create extends CreateImageOptions = CreateImageOptions> {
  readonly format: ImageFormat<Create>;
  /** Where the kit makes its files; called for every case. */
  backend(): StorageBackend;
  /** A directory of the backend, for files named `image-1`, `image-2`, ... Default `/`. */
  readonly directory?: string;
  /** What every new image is created with, beside its size and backing file: a cluster size, a version, ... */
  readonly create?: Omit<Create, keyof CreateImageOptions>;
  /** Default: the format's. Fewer where `create` takes some away. */
  readonly abilities?: ReadonlySet<ImageAbility>;
}

/** How the cases of `imageKit` get at a format. */
export function imageSubject<Create extends CreateImageOptions>(
  subject: ImageSubject<Create>,
): SubjectFactory<ImageTestBed, ImageAbility> {
  const format: ImageFormat = {
    ...subject.format,
    create: (storage, options) =>
      subject.format.create(storage, { ...subject.create, ...options } as Create),
  };
  const abilities = subject.abilities ?? subject.format.abilities;
  const directory = subject.directory ?? '/';
  return {
    abilities,
    create: () => ImageTestBed.open(format, abilities, subject.backend(), directory),
  };
}

/** Options of a layer. */
export interface LayerOptions {
  /** Bytes. Default `ImageTestBed.size`. */
  readonly size?: number;
  /** Whether a backing file lies below. */
  readonly backed?: boolean;
  /** Bytes of the backing file. Default: more than any case grows a disk to. */
  readonly belowBytes?: number;
}

/** Where one case makes its images. */
export class ImageTestBed implements AsyncDisposable {
  readonly format: ImageFormat;
  readonly abilities: ReadonlySet<ImageAbility>;
  /** Bytes of what cases take for a cluster: the format's, or 4 KiB where it has none. */
  readonly cluster: number;
  readonly #backend: StorageBackend;
  readonly #directory: string;
  readonly #closing: AsyncDisposableStack = new AsyncDisposableStack();
  #files = 0;

  private constructor(
    parts: Pick<ImageTestBed, 'format' | 'abilities' | 'cluster'>,
    backend: StorageBackend,
    directory: string,
  ) {
    this.format = parts.format;
    this.abilities = parts.abilities;
    this.cluster = parts.cluster;
    this.#backend = backend;
    this.#directory = directory;
  }

  /** Makes an image to learn its geometry from. */
  static async open(
    format: ImageFormat,
    abilities: ReadonlySet<ImageAbility>,
    backend: StorageBackend,
    directory: string,
  ): Promise<ImageTestBed> {
    const path = `${directory}/geometry`.replace('//', '/');
    const storage = await backend.create(path, { secret: false });
    await using image = await format.create(storage, { virtualSize: byteLength(4 * KIB) });
    const { clusterSize } = image.geometry;
    const cluster = clusterSize < 512 ? 4 * KIB : clusterSize;
    return new ImageTestBed({ format, abilities, cluster }, backend, directory);
  }

  /** Bytes of a disk of a few clusters, the last of them cut; many where clusters are small, so that tables are several. */
  get size(): number {
    const clusters = this.cluster <= KIB ? 70 : this.cluster < 1024 * KIB ? 5 : 2;
    return clusters * this.cluster + alignDown(this.cluster / 2, 512);
  }

  /** A new file that is closed with the test bed. */
  async newFile(): Promise<ImageFile> {
    const path = `${this.#directory}/image-${++this.#files}`.replace('//', '/');
    const file = await ImageFile.create(this.#backend, path);
    this.#closing.defer(() => file.close());
    return file;
  }

  /** A new image with the file it lies in, and its model. */
  async layer({
    size = this.size,
    backed = false,
    belowBytes = 4 * size,
  }: LayerOptions = {}): Promise<Layer> {
    const file = await this.newFile();
    const image = await this.create(file, size, backed ? BACKING : null);
    const layer = new Layer({
      format: this.format,
      file,
      image,
      belowBytes: backed ? belowBytes : null,
    });
    this.#closing.defer(() => layer.close());
    return layer;
  }

  /** A new image; the caller closes it. */
  async create(file: ImageFile, size: number, backing: BackingReference | null): Promise<Image> {
    return this.format.create(await file.open(), { virtualSize: byteLength(size), backing });
  }

  /** Another file with `length` bytes to copy from. */
  async copySource(length: number): Promise<CopySource> {
    const bytes = new Uint8Array(length);
    fillContent(bytes, 0, 99);
    const storage: Storage = await (await this.newFile()).open();
    this.#closing.use(storage);
    await storage.write(hostOffset(0), bytes);
    return { storage, bytes };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#closing.disposeAsync();
  }
}
