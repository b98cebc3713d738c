import type { Storage, StorageBackend } from '@downfold/storage';
import { hostOffset } from '@downfold/units';
import { type Crash, crashedStorage, crashes, durableChanges } from './crash.ts';
import { type FileChange, type FileEvent, type FileWatch, watchedStorage } from './watched-file.ts';

/** The file of an image under test: what is done to it is counted, and it can be looked at as a crash would leave it. */
export class ImageFile {
  readonly #backend: StorageBackend;
  readonly #path: string;
  readonly #watch: FileWatch = { changes: 0, log: null };
  /** What the file was when its log began. */
  #base: Storage | null = null;
  #copies = 0;

  private constructor(backend: StorageBackend, path: string) {
    this.#backend = backend;
    this.#path = path;
  }

  /** A new, empty file. */
  static async create(backend: StorageBackend, path: string): Promise<ImageFile> {
    await using _ = await backend.create(path, { secret: false });
    return new ImageFile(backend, path);
  }

  /** How many operations changed the file, or could have. */
  get changes(): number {
    return this.#watch.changes;
  }

  /** Entries of the log so far. */
  get logged(): number {
    return this.#log().length;
  }

  /** Opened for writing, whatever the image is opened for: an image that must not write is found out, not prevented. */
  async open(): Promise<Storage> {
    return watchedStorage(await this.#backend.open(this.#path, 'write'), this.#watch);
  }

  /** All bytes of the file. */
  async bytes(): Promise<Uint8Array> {
    await using storage = await this.#backend.open(this.#path, 'read');
    const bytes = new Uint8Array(await storage.length());
    await storage.read(hostOffset(0), bytes);
    return bytes;
  }

  /** Takes the present content for durable, and logs from here on. */
  async startLog(): Promise<void> {
    await using now = await this.#backend.open(this.#path, 'read');
    this.#base = await this.#copy(now, this.#copyPath());
    this.#watch.log = [];
  }

  /** As a power cut leaves it now: what was flushed. */
  durable(): Storage {
    return crashedStorage(this.#baseOf(), durableChanges(this.#log()));
  }

  /** Everything that power cuts since the start of the log may have left. */
  crashes(random: () => number): Generator<Crash, void, undefined> {
    return crashes(this.#log(), random);
  }

  /** The file as a crash left it, for reading. */
  after(changes: readonly FileChange[]): Storage {
    return crashedStorage(this.#baseOf(), changes);
  }

  /** A file of its own with the content of `storage`, to go on with after a crash. */
  async restored(storage: Storage): Promise<ImageFile> {
    const path = this.#copyPath();
    await using _ = await this.#copy(storage, path);
    return new ImageFile(this.#backend, path);
  }

  async close(): Promise<void> {
    await this.#base?.[Symbol.asyncDispose]();
  }

  #copyPath(): string {
    return `${this.#path}.${++this.#copies}`;
  }

  async #copy(from: Storage, path: string): Promise<Storage> {
    const to = await this.#backend.create(path, { secret: false });
    await to.copyFrom([
      { source: from, from: hostOffset(0), to: hostOffset(0), length: await from.length() },
    ]);
    return to;
  }

  #log(): readonly FileEvent[] {
    if (this.#watch.log === null) throw new Error('startLog was not called');
    return this.#watch.log;
  }

  #baseOf(): Storage {
    if (this.#base === null) throw new Error('startLog was not called');
    return this.#base;
  }
}
