import { AsyncLocalStorage } from 'node:async_hooks';
import type { ChainLayer } from '@downfold/chain';
import type { Image } from '@downfold/image';
import { isFull, type OperationOptions } from '@downfold/storage';
import {
  type ByteLength,
  byteLength,
  type DirectReads,
  type GuestOffset,
  type GuestRange,
  rangeBetween,
  rangeEnd,
} from '@downfold/units';
import { type BlockStatus, firstStatuses, joined } from './block-status.ts';
import { giveBack, unitsIn, zero, zeroAsData } from './changes.ts';
import { DirectMap } from './direct-map.ts';
import { DeviceError, type DeviceErrorCode } from './errors.ts';
import { Flushers } from './flusher.ts';
import { Latency } from './latency.ts';
import { isReopened, type LiveChain, linkLayers } from './live-chain.ts';
import { Mirror } from './mirror.ts';
import { type Change, Observers, type WriteObserver } from './observers.ts';
import type {
  ChangeOptions,
  DeviceOptions,
  LayerLocks,
  ReplaceOptions,
  StatusOptions,
  ZeroOptions,
} from './options.ts';
import { type Drained, RequestQueue } from './request-queue.ts';
import { type DrainedSection, LiveSection } from './section.ts';
import type { Use } from './turn.ts';

/** What one look at the metadata covers at most, so that a section need not wait until all of a large disk was looked at. */
const STATUS_PIECE = 2 ** 36;

/** A range that a request is about to change. */
type Changing = Pick<Change, 'kind' | 'offset' | 'length' | 'source'>;

/**
 * The disk that a guest sees: reads come through all layers, changes go to the active one, which completes what a change cuts with what it
 * showed before (copy-on-write).
 *
 * Requests: any number at once, of any byte range. Those that overlap begin in the order they were called unless both are reads, and each is
 * whole for the others; those that do not overlap wait for nothing but a drained section. A signal takes effect when the turn of its request
 * comes, and then as the image says. A buffer is the disk's until its request has settled.
 *
 * Durability: a change is durable once a `flush` resolved that was called after the change had resolved, or when it resolves with `fua`. A
 * failed flush is final: every later change and flush rejects with `DEVICE_FLUSH_FAILED`; reads go on. One that the host had no room for
 * (`STORAGE_NO_SPACE`) may be tried again.
 *
 * Layers are the caller's, who opened them; nobody but the disk changes the active one, except in a drained section or in `holding`.
 */
export class Device implements AsyncDisposable {
  /** The locks on the layers, for jobs that raise one and lower it again. The disk does not touch them. */
  readonly locks: LayerLocks;
  /** How long reads and changes take, for jobs that leave the disk to the guest. */
  readonly latency: Latency;
  #readOnly: boolean;
  #chain: LiveChain;
  #size: number;
  readonly #now: () => number;
  readonly #zeroesByMetadata: (image: Image) => boolean;
  readonly #queue: RequestQueue;
  readonly #observers = new Observers();
  readonly #flushers = new Flushers();
  /** Layers that a job flushes by itself. */
  readonly #exempt: Set<Image> = new Set();
  /** The drained section that a call is made from. */
  readonly #inside: AsyncLocalStorage<LiveSection> = new AsyncLocalStorage();
  /** What threads read by themselves; null: nobody asked for that. */
  #direct: DirectMap | null = null;
  /** Ends what has not begun when a closing is hurried. */
  readonly #hurry = new AbortController();
  #closing: Promise<void> | null = null;
  #failure: { readonly cause: unknown } | null = null;

  /** @throws DeviceError `DEVICE_BAD_CHAIN` */
  constructor(options: DeviceOptions) {
    const { layers, now = () => performance.now(), zeroesByMetadata = byMetadata } = options;
    this.locks = options.locks ?? UNLOCKED;
    this.#readOnly = options.readOnly ?? layers.at(-1)?.image.writable === false;
    this.#chain = linkLayers(layers, this.#readOnly);
    this.#size = this.#chain.active.geometry.virtualSize;
    this.#now = now;
    this.#queue = new RequestQueue(now);
    this.latency = new Latency(now);
    this.#zeroesByMetadata = zeroesByMetadata;
  }

  /** Whether changes are refused. */
  get readOnly(): boolean {
    return this.#readOnly;
  }

  /** Bytes. */
  get size(): number {
    return this.#size;
  }

  /** False once a flush failed, or a job lost track: changes and flushes are refused from then on. */
  get isSound(): boolean {
    return this.#failure === null;
  }

  /** The layers now, bottom first. */
  get layers(): readonly ChainLayer[] {
    return this.#chain.layers;
  }

  /** Fills `target`. @throws DeviceError, ImageError or StorageError */
  async read(offset: GuestOffset, target: Uint8Array, options?: OperationOptions): Promise<void> {
    const range = { offset, length: byteLength(target.length) };
    const begun = this.latency.begin();
    await this.#run('read', range, options, (signal) =>
      this.#chain.active.read(offset, target, this.#chain.below, { signal }),
    );
    this.latency.end(begun);
  }

  /** @throws DeviceError, ImageError or StorageError; some of the bytes may have been written then */
  async write(offset: GuestOffset, source: Uint8Array, options?: ChangeOptions): Promise<void> {
    const range = { offset, length: byteLength(source.length) };
    await this.#change({ kind: 'write', ...range, source }, options, async (signal) => {
      await this.#chain.active.write(offset, source, { fill: this.#chain.below, signal });
      return range;
    });
  }

  /** The range reads as zeros. @throws as `write` */
  async writeZeroes(range: GuestRange, options: ZeroOptions = {}): Promise<void> {
    const { mayUnmap = true, fast = false } = options;
    if (fast && !(mayUnmap && this.#zeroesByMetadata(this.#chain.active)))
      throw this.#error('DEVICE_UNSUPPORTED', 'zeros would have to be written as data', range);
    const { offset, length } = range;
    await this.#change({ kind: 'zero', offset, length, source: null }, options, async (signal) => {
      await (mayUnmap ? zero : zeroAsData)(this.#chain, range, signal);
      return range;
    });
  }

  /**
   * The guest needs the range no more. Whole units of allocation in it read as zeros and give their space back, where the active layer does
   * that by metadata; the rest stays as it is. What lies below never shows. @throws as `write`
   */
  async discard({ offset, length }: GuestRange, options?: ChangeOptions): Promise<void> {
    const change: Changing = { kind: 'discard', offset, length, source: null };
    await this.#change(change, options, async (signal) => {
      const units = unitsIn(this.#chain, change);
      if (!this.#zeroesByMetadata(this.#chain.active)) return { ...units, length: byteLength(0) };
      await giveBack(this.#chain, units, signal);
      return units;
    });
  }

  /**
   * What was changed by requests that resolved before the call is durable, and what jobs wrote to any layer: all layers that are open for
   * writing, and not exempt, are flushed, the lower ones first. @throws DeviceError `DEVICE_FLUSH_FAILED`
   */
  async flush(options?: OperationOptions): Promise<void> {
    this.#assertSound();
    const start = { offset: 0 as GuestOffset, length: byteLength(0) };
    await this.#run('none', start, options, () => this.#flushLayers(this.#chain.layers));
  }

  /** Makes the disk larger, durably; the new area reads as zeros. @throws DeviceError `DEVICE_UNSUPPORTED` when it would be smaller */
  async resize(size: ByteLength): Promise<void> {
    this.#assertChangeable();
    await this.drained(async () => {
      this.#assertSound();
      if (size < this.#size) throw this.#error('DEVICE_UNSUPPORTED', 'shrinking the disk');
      const { active, below, layers } = this.#chain;
      const reach = layers.at(-2)?.image.geometry.virtualSize ?? 0;
      await active.resize(size, { fill: reach > this.#size ? below : null });
      this.#size = active.geometry.virtualSize;
    });
  }

  /** How `range` is stored: ordered, gapless, each status as long as it can be, in batches. Changes in between may show or not. */
  async *blockStatus(
    range: GuestRange,
    options: StatusOptions = {},
  ): AsyncGenerator<readonly BlockStatus[], void, undefined> {
    const { limit = Number.POSITIVE_INFINITY } = options;
    const end = rangeEnd(range);
    this.#assertInside(range);
    yield* joined(range, limit, (from) => {
      const piece = rangeBetween(from, Math.min(end, from + STATUS_PIECE));
      return this.#run('none', piece, options, (signal) =>
        firstStatuses(this.#chain.layers, piece, { signal }),
      );
    });
  }

  /** For threads that read bytes of the disk from its files by themselves. What they find there is what a read through the disk shows. */
  async direct(): Promise<DirectReads> {
    // within a section: no change is under way that it does not know of
    await this.drained(async () => {
      this.#direct ??= new DirectMap((range, work) =>
        this.#run('none', range, undefined, () => work(this.#chain.layers)),
      );
    });
    return this.#direct as DirectMap;
  }

  /** Tells `observer` of every change that has not been acknowledged yet, and of all later ones; what it returns ends that. */
  observe(observer: WriteObserver): () => void {
    return this.#observers.add(observer);
  }

  /** Starts to keep `target`, a lower layer that is open for writing, like the disk; see `Mirror`. */
  mirror(target: Image): Mirror {
    return new Mirror(this, target);
  }

  /**
   * Leaves a lower layer out of flushes until the returned function is called: for a job that writes there only what layers above still hold,
   * and flushes it before that ends. The guest then neither waits for what the job wrote, nor fails with it. The active layer is flushed always.
   */
  exemptFromFlush(image: Image): () => void {
    this.#exempt.add(image);
    return () => void this.#exempt.delete(image);
  }

  /**
   * Runs a job's work on `range` while no request changes it (`changes`), or none touches it at all (`requests`: for work after which what
   * others read meanwhile would be gone, such as a deallocation below). In the order of requests. The work uses the images, not the disk: a
   * request in the range, or a section, would wait for it.
   */
  async holding<T>(
    range: GuestRange,
    without: 'changes' | 'requests',
    work: (layers: readonly ChainLayer[]) => Promise<T>,
  ): Promise<T> {
    return this.#run(without === 'changes' ? 'read' : 'change', range, undefined, () =>
      this.#apart(range, () => work(this.#chain.layers)),
    );
  }

  /**
   * Runs `work` alone: requests that were called before are over, later ones are held, in order, until it has settled, and then go on. So do
   * sections: each has its place in the line. A section asked for from within one is a part of it; a request from within is refused
   * with `DEVICE_DRAINED`, since it would wait for itself.
   */
  async drained<T>(work: (section: DrainedSection) => Promise<T>): Promise<Drained<T>> {
    const outer = this.#inside.getStore();
    if (outer === undefined || outer.isOver) {
      this.#assertOpen();
      return this.#alone(work);
    }
    const begun = this.#now();
    const value = await work(outer);
    return { value, drainMs: 0, workMs: this.#now() - begun, held: 0 };
  }

  /**
   * Refuses new requests, finishes those that were called before, and flushes. The layers stay open. When `signal` aborts, what has not begun
   * yet is refused too, and what runs ends as soon as the images allow. Closing again is the same closing.
   * @throws DeviceError `DEVICE_FLUSH_FAILED` when the last flush fails; the disk is closed then too, unless the host has no room for it
   * (`STORAGE_NO_SPACE`)
   */
  close({ signal }: OperationOptions = {}): Promise<void> {
    if (this.#isInside())
      return Promise.reject(this.#error('DEVICE_DRAINED', 'the section waits for its own end'));
    const hurry = (): void => this.#hurry.abort(this.#error('DEVICE_CLOSED', 'is closed'));
    if (signal?.aborted) hurry();
    signal?.addEventListener('abort', hurry, { once: true });
    this.#closing ??= this.#close().catch((cause: unknown) => {
      // nothing is lost yet: it can be closed when there is room
      if (isFull(cause) && signal?.aborted !== true) this.#closing = null;
      throw cause;
    });
    return this.#closing;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #close(): Promise<void> {
    await this.#alone(async (section) => {
      if (this.#failure === null) await section.flush();
    });
    // the layers stay open, and wait for no reader of this disk any more
    await this.#direct?.suspend();
  }

  /** Runs `work` in its turn: between requests that overlap and came before, and those that come later. */
  async #run<T>(
    use: Use,
    range: GuestRange,
    options: OperationOptions | undefined,
    work: (signal: AbortSignal) => Promise<T>,
  ): Promise<T> {
    this.#assertInside(range);
    this.#assertOpen();
    if (this.#queue.isHolding && this.#isInside())
      throw this.#error('DEVICE_DRAINED', 'a request waits for the section it comes from', range);
    const kind = range.length === 0 ? 'none' : use;
    const ticket = this.#queue.enter(kind, range.offset, rangeEnd(range));
    try {
      if (!ticket.begun) await ticket.wait();
      const signal = this.#signalOf(options);
      signal.throwIfAborted();
      return await work(signal);
    } finally {
      this.#queue.leave(ticket);
    }
  }

  /** Runs a change; `work` resolves with the range that did change. */
  async #change(
    change: Changing,
    options: ChangeOptions | undefined,
    work: (signal: AbortSignal) => Promise<GuestRange>,
  ): Promise<void> {
    this.#assertChangeable();
    const begun = this.latency.begin();
    await this.#run('change', change, options, async (signal) => {
      this.#assertSound();
      if (change.length === 0) return;
      const changed = await this.#applied(change, () => this.#apart(change, () => work(signal)));
      if (changed.length === 0) return;
      await this.#tell({ ...change, ...changed, failed: false });
      if (options?.fua === true) await this.#flushImage(this.#chain.active);
    });
    this.latency.end(begun);
  }

  /** Runs `work`, which may change or move bytes of a range, while nobody reads them but through the disk. */
  async #apart<T>(range: GuestRange, work: () => Promise<T>): Promise<T> {
    const direct = this.#direct;
    if (direct === null) return work();
    const span = direct.begin(range);
    try {
      const idle = direct.map.idle();
      if (idle !== null) await idle;
      return await work();
    } finally {
      direct.end(span);
    }
  }

  /** What `work` resolves with. When it fails, observers know that the range may have changed. */
  async #applied(change: Changing, work: () => Promise<GuestRange>): Promise<GuestRange> {
    try {
      return await work();
    } catch (cause) {
      // the request fails with what failed first
      await this.#observers.tell({ ...change, source: null, failed: true });
      throw cause;
    }
  }

  async #tell(change: Change): Promise<void> {
    const failure = await this.#observers.tell(change);
    if (failure !== null) throw failure;
  }

  async #alone<T>(work: (section: DrainedSection) => Promise<T>): Promise<Drained<T>> {
    return this.#queue.alone(async () => {
      const section = this.#section();
      await this.#direct?.suspend();
      try {
        return await this.#inside.run(section, work, section);
      } finally {
        section.end();
        this.#direct?.resume(this.#chain.layers, this.#size);
      }
    });
  }

  #section(): LiveSection {
    const device = this;
    return new LiveSection({
      get layers() {
        return device.#chain.layers;
      },
      replace: (layers, options) => this.#replace(layers, options),
      flush: () => this.#flushLayers(this.#chain.layers),
      fail: (cause) => {
        this.#failure ??= { cause };
      },
      over: () => {
        throw this.#error('DEVICE_DRAINED', 'the section is over');
      },
    });
  }

  async #replace(layers: readonly ChainLayer[], options: ReplaceOptions = {}): Promise<void> {
    const readOnly = this.#readOnly && options.takesChanges !== true;
    const next = linkLayers(layers, readOnly);
    // files that are only opened in another way below may be so also when nothing is changed any more
    if (!isReopened(this.#chain, next)) this.#assertSound();
    const size = next.active.geometry.virtualSize;
    if (size < this.#size)
      throw this.#error(
        'DEVICE_BAD_CHAIN',
        `${next.active.label} has ${size} bytes, the disk ${this.#size}`,
      );
    const stay = new Set(next.layers.map(({ image }) => image));
    const leaving = this.#chain.layers.filter(({ image }) => !stay.has(image));
    await this.#flushLayers(leaving);
    this.#chain = next;
    this.#readOnly = readOnly;
    this.#size = size;
    if (options.close === true) for (const { image } of leaving) await image[Symbol.asyncDispose]();
  }

  /** Bottom first: what an upper layer lets go because a lower one holds it is never durable without that. */
  async #flushLayers(layers: readonly ChainLayer[]): Promise<void> {
    for (const { image } of layers) {
      const isLeftOut = this.#exempt.has(image) && image !== this.#chain.active;
      if (image.writable && !isLeftOut) await this.#flushImage(image);
    }
  }

  async #flushImage(image: Image): Promise<void> {
    this.#assertSound();
    try {
      await this.#flushers.flush(image);
    } catch (cause) {
      // nothing was flushed yet, and nothing is lost; what went wrong for good says so at the next change
      if (isFull(cause)) throw cause;
      this.#failure ??= { cause };
    }
    // also when another flush failed meanwhile
    this.#assertSound();
  }

  #signalOf(options: OperationOptions | undefined): AbortSignal {
    const hurry = this.#hurry.signal;
    return options?.signal === undefined ? hurry : AbortSignal.any([options.signal, hurry]);
  }

  #isInside(): boolean {
    return this.#inside.getStore()?.isOver === false;
  }

  #assertOpen(): void {
    if (this.#closing !== null) throw this.#error('DEVICE_CLOSED', 'is closed');
  }

  #assertChangeable(): void {
    if (this.#readOnly) throw this.#error('DEVICE_READ_ONLY', 'is for reading only');
    this.#assertSound();
  }

  #assertSound(): void {
    if (this.#failure === null) return;
    const { cause } = this.#failure;
    throw this.#error(
      'DEVICE_FLUSH_FAILED',
      'a flush failed, or a job lost track: what was written since the last good one may be lost; takes no more changes',
      undefined,
      cause,
    );
  }

  #assertInside(range: GuestRange): void {
    if (rangeEnd(range) > this.#size)
      throw this.#error(
        'DEVICE_RANGE',
        `${range.length} bytes at ${range.offset} reach past the ${this.#size} of the disk`,
        range,
      );
  }

  #error(code: DeviceErrorCode, what: string, range?: GuestRange, cause?: unknown): DeviceError {
    const image = this.#chain.active.label;
    const where = range === undefined ? {} : { offset: range.offset, length: range.length };
    return new DeviceError(code, `disk on ${image}: ${what}`, { image, ...where }, cause);
  }
}

/** Formats that have no units of allocation say 1. */
function byMetadata({ geometry, zeroesAsData }: Image): boolean {
  return geometry.allocationGranularity > 1 && zeroesAsData !== true;
}

const UNLOCKED: LayerLocks = { change: async () => null, release: async () => {} };
