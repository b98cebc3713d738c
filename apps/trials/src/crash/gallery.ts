import { posix } from 'node:path';
import { type JournalRecord, parseJournal } from '@downfold/commit';
import { type MemoryDisk, memoryBackend } from '@downfold/storage-memory';
import { DownfoldError } from '@downfold/units';
import { Contents, OPEN, type Picture, takePicture, ZEROS } from './picture.ts';
import { SECTOR_BYTES } from './scenario.ts';

/** The virtual disk that an image shows through the references on the disk. */
export interface View {
  /** Number of this view among all of a gallery. */
  readonly id: number;
  /** Bytes. */
  readonly size: number;
  /** Content of each sector. */
  readonly sectors: Int32Array;
}

/** A view, or why there is none. */
export type Shown = View | { readonly broken: string };

/**
 * Looks at the files of crash states. Most states differ from one seen before in one file, so each content of a file is opened,
 * checked and read once, and each combination of layers composed once. The composing is this trial's own (a dozen lines: upper
 * layer first, zeros past the end of a short one), so that it does not share a mistake with `@downfold/chain`.
 */
export class Gallery {
  readonly #formats: ReadonlyMap<string, string>;
  readonly #contents = new Contents();
  readonly #keys: Map<string, number> = new Map();
  readonly #pictures: Map<string, Picture> = new Map();
  readonly #views: Map<string, View> = new Map();
  readonly #journals: Map<number, readonly JournalRecord[] | string> = new Map();

  /** @param formats format of each image by path */
  constructor(formats: ReadonlyMap<string, string>) {
    this.#formats = formats;
  }

  /** How many contents of files were opened and read. */
  get taken(): number {
    return this.#pictures.size;
  }

  /** A text that is equal for equal disks. */
  keyOf(disk: MemoryDisk): string {
    let key = '';
    for (const path of [...disk.names.keys()].sort())
      key += `${path}=${this.#fileKey(disk, path)};`;
    return key;
  }

  /** What the file of an image says; null: there is no such file. Resolved at once when its content was seen before. */
  picture(disk: MemoryDisk, path: string): Picture | null | Promise<Picture> {
    if (!disk.names.has(path)) return null;
    const key = `${path}:${this.#fileKey(disk, path)}`;
    return this.#pictures.get(key) ?? this.#take(disk, path, key);
  }

  async #take(disk: MemoryDisk, path: string, key: string): Promise<Picture> {
    await using storage = await memoryBackend(disk).open(path, 'read');
    const format = this.#formats.get(path) as string;
    const picture = await takePicture(this.#pictures.size, format, storage, this.#contents);
    this.#pictures.set(key, picture);
    return picture;
  }

  /** What an image shows, by the references in `pictures` (of all images of a disk, by path). */
  shown(pictures: ReadonlyMap<string, Picture>, path: string, depth = 0): Shown {
    const picture = pictures.get(path);
    if (picture === undefined) return { broken: `${path} is not there` };
    if (picture.broken !== null) return { broken: picture.broken };
    if (depth > pictures.size) return { broken: `${path}: backs itself` };
    const { backing } = picture;
    let below: Shown | null = null;
    if (backing !== null) {
      const at = posix.resolve(posix.dirname(path), backing.name);
      if (this.#formats.get(at) !== backing.format)
        return { broken: `${path}: names '${backing.name}' of format '${backing.format}'` };
      below = this.shown(pictures, at, depth + 1);
      if ('broken' in below) return below;
    }
    const key = `${picture.id}/${below?.id ?? ''}`;
    let view = this.#views.get(key);
    if (view === undefined) {
      view = this.#compose(this.#views.size, picture, below);
      this.#views.set(key, view);
    }
    return view;
  }

  #compose(id: number, { virtualSize, sectors: own }: Picture, below: View | null): View {
    const sectors = own.slice();
    for (let index = 0; index < sectors.length; index++)
      if (sectors[index] === OPEN) sectors[index] = below?.sectors[index] ?? ZEROS;
    const cut = virtualSize % SECTOR_BYTES;
    const last = sectors.length - 1;
    if (cut > 0) sectors[last] = this.#contents.join(sectors[last] as number, cut, ZEROS);
    return { id, size: virtualSize, sectors };
  }

  /** What a disk of `bytes` reads as when its first part is that of `view`, and the rest what `rest` says (default: zeros). */
  reach({ size, sectors }: View, bytes: number, rest?: Int32Array): Int32Array {
    const reached = rest?.slice() ?? new Int32Array(Math.ceil(bytes / SECTOR_BYTES)).fill(ZEROS);
    const end = Math.min(size, bytes);
    const whole = Math.floor(end / SECTOR_BYTES);
    reached.set(sectors.subarray(0, whole));
    if (end % SECTOR_BYTES > 0)
      reached[whole] = this.#contents.join(
        sectors[whole] as number,
        end % SECTOR_BYTES,
        reached[whole] as number,
      );
    return reached;
  }

  /** The records of a journal; null: no such file; a text: why it cannot be used. */
  journal(disk: MemoryDisk, path: string): readonly JournalRecord[] | string | null {
    if (!disk.names.has(path)) return null;
    const key = this.#fileKey(disk, path);
    let records = this.#journals.get(key);
    if (records === undefined) {
      records = parse(path, disk);
      this.#journals.set(key, records);
    }
    return records;
  }

  #fileKey(disk: MemoryDisk, path: string): number {
    const digest = disk.fileOf(disk.inodeOf(path)).digest();
    let key = this.#keys.get(digest);
    if (key === undefined) {
      key = this.#keys.size;
      this.#keys.set(digest, key);
    }
    return key;
  }
}

function parse(path: string, disk: MemoryDisk): readonly JournalRecord[] | string {
  const file = disk.fileOf(disk.inodeOf(path));
  const bytes = new Uint8Array(file.length);
  file.read(0, bytes);
  try {
    return parseJournal(path, bytes).records;
  } catch (cause) {
    if (cause instanceof DownfoldError) return cause.message;
    throw cause;
  }
}

/** Whether two runs of contents are the same. */
export function same(a: Int32Array, b: Int32Array): boolean {
  if (a.length !== b.length) return false;
  for (let index = 0; index < a.length; index++) if (a[index] !== b[index]) return false;
  return true;
}
