import { crc32 } from 'node:zlib';
import type { OperationOptions, Storage } from '@downfold/storage';
import {
  type ByteLength,
  byteLength,
  type GuestOffset,
  type GuestRange,
  guestOffset,
  hostOffset,
  rangeEnd,
  splitRange,
} from '@downfold/units';
import {
  type BackingReference,
  type CheckOptions,
  type CheckReport,
  type CowSource,
  type Extent,
  type ExtentBatch,
  ExtentList,
  type Image,
  type ImageCopyPiece,
  type ImageDescription,
  ImageError,
  type ImageErrorCode,
  type ImageGeometry,
  type ImageMark,
  type ImageWriteOptions,
  type StageOptions,
  type Staging,
} from '../src/index.ts';
import { stageToy } from './toy-staging.ts';
import { CLUSTER, encodeHead, type ToyParts, type ToyState, takeSpace } from './toy-state.ts';

const LONGEST_NAME = 600;
const LONGEST_JOB = 200;

/**
 * The simplest image that keeps the contract: a map in memory, written as JSON to a fresh place at each flush, where one write of a
 * sector, its head, publishes it. Space is never used again. A staging is an image with another head.
 */
export class ToyImage implements Image {
  readonly format = 'toy';
  readonly file: Storage;
  readonly data: Storage;
  readonly writable: boolean;
  readonly #parts: ToyParts;
  #state: Omit<ToyState, 'clusters'>;
  #clusters: Map<number, number | 'zero'>;
  #published: string;
  #staged = false;
  #closed = false;
  #changing: Promise<unknown> = Promise.resolve();
  #flushing: Promise<unknown> = Promise.resolve();

  constructor(parts: ToyParts) {
    const { storage, state, writable } = parts;
    this.#parts = parts;
    this.file = storage;
    this.data = storage;
    this.writable = writable;
    this.#state = { size: state.size, backing: state.backing, mark: state.mark };
    this.#clusters = new Map(state.clusters);
    this.#published = JSON.stringify(this.#seal());
  }

  get label(): string {
    return this.data.label;
  }
  get backing(): BackingReference | null {
    return this.#state.backing;
  }
  readonly encrypted = false;
  get mark(): ImageMark | null {
    return this.#state.mark;
  }
  get geometry(): ImageGeometry {
    const cluster = byteLength(CLUSTER);
    return {
      virtualSize: byteLength(this.#state.size),
      clusterSize: cluster,
      allocationGranularity: cluster,
    };
  }
  get fingerprint(): string {
    return crc32(JSON.stringify(this.#state)).toString(16).padStart(8, '0');
  }

  /** Nobody has to be asked: nothing is given away. */
  beforeReuse(): Disposable {
    return { [Symbol.dispose]: () => undefined };
  }

  async describe(): Promise<ImageDescription> {
    return { dirty: false, encrypted: false, snapshots: [], specific: { toy: 1 } };
  }

  async *extents(
    range: GuestRange,
    options?: OperationOptions,
  ): AsyncGenerator<ExtentBatch, void, undefined> {
    this.#assertRange(range);
    options?.signal?.throwIfAborted();
    const batch: Extent[] = [];
    for (const piece of splitRange(range, CLUSTER)) {
      const next = this.#extentOf(piece);
      const last = batch.at(-1);
      if (last !== undefined && sameRun(last, next))
        batch[batch.length - 1] = { ...last, length: byteLength(last.length + next.length) };
      else batch.push(next);
    }
    yield ExtentList.of(batch);
  }

  async read(
    offset: GuestOffset,
    target: Uint8Array,
    below: CowSource | null,
    options?: OperationOptions,
  ): Promise<void> {
    const range = { offset, length: byteLength(target.length) };
    for await (const batch of this.extents(range, options))
      for (const extent of batch) {
        const from = extent.offset - offset;
        const part = target.subarray(from, from + extent.length);
        if (extent.status === 'data') await this.data.read(extent.host, part, options);
        else if (extent.status === 'unallocated' && below !== null)
          await below(extent.offset, part);
        else part.fill(0);
      }
  }

  async write(offset: GuestOffset, source: Uint8Array, options: ImageWriteOptions): Promise<void> {
    const range = { offset, length: byteLength(source.length) };
    await this.#change(range, options, async () => {
      for (const piece of splitRange(range, CLUSTER)) {
        const from = piece.offset - offset;
        await this.#writePiece(piece, source.subarray(from, from + piece.length), options.fill);
      }
    });
  }

  async copyFrom(pieces: readonly ImageCopyPiece[], options: ImageWriteOptions): Promise<void> {
    for (const { source, from, offset, length } of pieces) {
      this.#assertRange({ offset, length });
      const bytes = new Uint8Array(length);
      await source.read(from, bytes);
      await this.write(offset, bytes, options);
    }
  }

  async writeZeroes(range: GuestRange, options: ImageWriteOptions): Promise<void> {
    await this.#change(range, options, async () => {
      for (const piece of splitRange(range, CLUSTER)) {
        const index = Math.floor(piece.offset / CLUSTER);
        if (this.#clusters.get(index) === 'zero') continue;
        if (this.#isWhole(piece)) this.#clusters.set(index, 'zero');
        else await this.#writePiece(piece, new Uint8Array(piece.length), options.fill);
      }
    });
  }

  async deallocate(range: GuestRange, options?: OperationOptions): Promise<void> {
    await this.#change(range, options, async () => {
      for (const piece of splitRange(range, CLUSTER))
        if (this.#isWhole(piece)) this.#clusters.delete(Math.floor(piece.offset / CLUSTER));
    });
  }

  async resize(virtualSize: ByteLength, options: ImageWriteOptions): Promise<void> {
    await this.#change(empty, options, async () => {
      const old = this.#state.size;
      if (virtualSize < old) throw this.#error('IMAGE_UNSUPPORTED', 'shrinking');
      if (options.fill !== null && virtualSize > old) {
        const cut = Math.floor(old / CLUSTER);
        if (old % CLUSTER !== 0 && !this.#clusters.has(cut))
          await this.#writePiece(
            { offset: guestOffset(old), length: byteLength(0) },
            new Uint8Array(),
            options.fill,
          );
        for (let index = Math.ceil(old / CLUSTER); index * CLUSTER < virtualSize; index++)
          this.#clusters.set(index, 'zero');
      }
      this.#state = { ...this.#state, size: virtualSize };
    });
    await this.flush();
  }

  async setBacking(reference: BackingReference | null): Promise<void> {
    this.#assertChangeable();
    if (reference !== null) await this.assertRoomFor(reference);
    this.#state = { ...this.#state, backing: reference };
    await this.flush();
  }

  async assertRoomFor(reference: BackingReference): Promise<void> {
    this.#assertOpen();
    if (reference.name.length > LONGEST_NAME) throw this.#error('IMAGE_NO_ROOM', 'name too long');
  }

  async setMark(mark: ImageMark | null): Promise<void> {
    this.#assertChangeable();
    if ((mark?.job.length ?? 0) > LONGEST_JOB) throw this.#error('IMAGE_NO_ROOM', 'job too long');
    this.#state = { ...this.#state, mark };
    await this.flush();
  }

  /** Does not wait for changes that are under way: they are not in the map yet. */
  async flush(): Promise<void> {
    this.#assertChangeable();
    const turn = this.#flushing.then(() => this.#publish());
    this.#flushing = turn.catch(() => {});
    await turn;
  }

  async reclaimLeaks(options?: OperationOptions): Promise<number> {
    this.#assertChangeable(options);
    return 0;
  }

  async stage(options: StageOptions): Promise<Staging> {
    this.#assertChangeable(options);
    if (options.virtualSize < this.#state.size) throw this.#error('IMAGE_UNSUPPORTED', 'shrinking');
    await this.flush();
    this.#staged = true;
    const image = { parts: this.#parts, state: this.#seal() };
    const imageOf = (parts: ToyParts) => new ToyImage(parts);
    return stageToy(image, options, imageOf, (state) => {
      this.#staged = false;
      if (state === null) return;
      this.#state = { size: state.size, backing: state.backing, mark: state.mark };
      this.#clusters = new Map(state.clusters);
      this.#published = JSON.stringify(this.#seal());
    });
  }

  async check(options?: CheckOptions): Promise<CheckReport> {
    this.#assertOpen();
    options?.signal?.throwIfAborted();
    const length = await this.data.length();
    const places = [...this.#clusters.values()];
    const outside = places.filter((place) => place !== 'zero' && place >= length).length;
    if (outside > 0)
      options?.onFinding?.({ severity: 'corruption', message: 'past the end', offset: length });
    return {
      corruptions: outside,
      leaks: 0,
      totalClusters: Math.ceil(this.#state.size / CLUSTER),
      allocatedClusters: places.filter((place) => place !== 'zero').length,
      fragmentedClusters: 0,
      compressedClusters: 0,
      imageEndOffset: length,
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    await this.data[Symbol.asyncDispose]();
  }

  /** Writes the state although it is the same, when there is no head yet. */
  async publishFirst(): Promise<void> {
    this.#published = '';
    await this.flush();
  }

  #seal(): ToyState {
    return { ...this.#state, clusters: [...this.#clusters] };
  }

  /** Data before the state that points to it, the state before the sector that points to it. */
  async #publish(): Promise<void> {
    const sealed = JSON.stringify(this.#seal());
    await this.data.flush('toy: data before state');
    if (sealed === this.#published) return;
    const bytes = new TextEncoder().encode(sealed);
    const at = this.#take(bytes.length);
    await this.data.write(hostOffset(at), bytes, { what: 'state' });
    await this.data.flush('toy: state before head');
    const head = encodeHead({ toy: 1, at, bytes: bytes.length });
    await this.data.write(hostOffset(this.#parts.headAt), head, { what: 'head' });
    await this.data.flush('toy: head');
    this.#published = sealed;
  }

  /** Bytes at the end of the file that nobody has. */
  #take(length: number): number {
    return takeSpace(this.#parts.space, length);
  }

  async #writePiece(piece: GuestRange, source: Uint8Array, fill: CowSource | null): Promise<void> {
    const index = Math.floor(piece.offset / CLUSTER);
    const start = index * CLUSTER;
    const place = this.#clusters.get(index);
    const cut = piece.offset - start;
    if (typeof place === 'number' && !this.#parts.shared.has(place)) {
      await this.data.write(hostOffset(place + cut), source, { what: 'data' });
      return;
    }
    const bytes = new Uint8Array(CLUSTER);
    if (typeof place === 'number') await this.data.read(hostOffset(place), bytes);
    else if (place === undefined && fill !== null) {
      const inside = Math.min(CLUSTER, this.#state.size - start);
      if (cut > 0) await fill(guestOffset(start), bytes.subarray(0, cut));
      const after = bytes.subarray(cut + source.length, inside);
      if (after.length > 0) await fill(rangeEnd(piece), after);
    }
    bytes.set(source, cut);
    const at = this.#take(CLUSTER);
    await this.data.write(hostOffset(at), bytes, { what: 'data' });
    this.#clusters.set(index, at);
  }

  #extentOf(piece: GuestRange): Extent {
    const place = this.#clusters.get(Math.floor(piece.offset / CLUSTER));
    if (place === undefined) return { ...piece, status: 'unallocated' };
    if (place === 'zero') return { ...piece, status: 'zero', preallocated: false };
    return { ...piece, status: 'data', host: hostOffset(place + (piece.offset % CLUSTER)) };
  }

  #isWhole({ offset, length }: GuestRange): boolean {
    const end = offset + length;
    return offset % CLUSTER === 0 && (end % CLUSTER === 0 || end === this.#state.size);
  }

  /** Changes run one after the other: two of them may meet in one cluster. */
  async #change(
    range: GuestRange,
    options: OperationOptions | undefined,
    work: () => Promise<void>,
  ): Promise<void> {
    this.#assertRange(range);
    this.#assertChangeable(options);
    const turn = this.#changing.then(work);
    this.#changing = turn.catch(() => {});
    await turn;
  }

  #assertOpen(): void {
    if (this.#closed) throw this.#error('IMAGE_CLOSED', 'is closed');
  }

  #assertChangeable(options?: OperationOptions): void {
    this.#assertOpen();
    if (!this.writable) throw this.#error('IMAGE_READ_ONLY', 'was opened for reading only');
    if (this.#staged) throw this.#error('IMAGE_UNSUPPORTED', 'is staged on');
    options?.signal?.throwIfAborted();
  }

  #assertRange(range: GuestRange): void {
    this.#assertOpen();
    if (rangeEnd(range) > this.#state.size)
      throw this.#error('IMAGE_RANGE', `${rangeEnd(range)} is past the end`);
  }

  #error(code: ImageErrorCode, problem: string): ImageError {
    return new ImageError(code, `${this.label}: ${problem}`, { image: this.label });
  }
}

const empty: GuestRange = { offset: guestOffset(0), length: byteLength(0) };

function sameRun(a: Extent, b: Extent): boolean {
  if (a.status !== 'data' || b.status !== 'data') return a.status === b.status;
  return b.host === a.host + a.length;
}
