import { type ChainLayer, subchainExtents, viewOf } from '@downfold/chain';
import type { CowSource, Image } from '@downfold/image';
import {
  byteLength,
  type GuestOffset,
  type GuestRange,
  guestOffset,
  splitRange,
} from '@downfold/units';
import { DirtyMap } from './dirty-map.ts';
import { DeviceError } from './errors.ts';
import type { Change, WriteObserver } from './observers.ts';

/** Bytes of a chunk that is clean or dirty. */
const GRANULARITY = 65_536;
/** Bytes that are copied while no request changes them. */
const PIECE = 2 ** 20;
/** With so much left or less, and when passes stop gaining on the guest, changes are written to the target at once. */
const LITTLE = 16 * PIECE;

/** How a mirror goes about it. */
export interface MirrorOptions {
  readonly signal?: AbortSignal | undefined;
  /** Resolves when so many bytes more may be copied. */
  pass(bytes: number): Promise<void>;
  /** Called after each piece; bytes. */
  copied(bytes: number): void;
}

/** What a mirror needs of its disk. */
interface Mirrored {
  readonly size: number;
  readonly layers: readonly ChainLayer[];
  holding<T>(
    range: GuestRange,
    without: 'changes',
    work: (layers: readonly ChainLayer[]) => Promise<T>,
  ): Promise<T>;
  observe(observer: WriteObserver): () => void;
}

/**
 * Keeps a lower layer like the disk: for a commit of the active layer (facts on crash safety, 2.7). From its start on it notes what requests change.
 * Whoever made it copies what was there before.
 */
export class Mirror {
  /** Resolves, with the cause, when the target failed after `converge` began to write changes to it. Never rejects. */
  readonly broken: Promise<unknown>;
  readonly #disk: Mirrored;
  readonly #target: Image;
  readonly #dirty: DirtyMap;
  readonly #broke: PromiseWithResolvers<unknown> = Promise.withResolvers();
  #failure: { readonly cause: unknown } | null = null;
  #stop: () => void;

  constructor(disk: Mirrored, target: Image) {
    this.#disk = disk;
    this.#target = target;
    this.broken = this.#broke.promise;
    this.#dirty = new DirtyMap(byteLength(disk.size), GRANULARITY);
    this.#stop = disk.observe({ mode: 'note', noted: (change) => this.#note(change) });
  }

  /** Bytes that differ, at most. */
  get dirtyBytes(): number {
    return this.#dirty.count * GRANULARITY;
  }

  /**
   * Copies what changed since the start, in passes, while it gains on the guest; then has every change written to the target before it is
   * acknowledged, and copies what is left. When it resolves the target shows what the disk shows, and goes on doing so; nothing of it need be
   * durable. A target that fails then is let go: no request fails with it. @throws what the target, or a read of the layers, failed with
   */
  async converge(options: MirrorOptions): Promise<void> {
    for (let before = Number.POSITIVE_INFINITY; this.dirtyBytes > LITTLE; ) {
      if (this.dirtyBytes > before / 2) break;
      before = this.dirtyBytes;
      await this.#copyOnce(options);
    }
    this.#writeThrough();
    while (this.#dirty.count > 0) await this.#copyOnce(options);
    this.#assertWhole();
  }

  /** In a drained section: copies what is still different. @throws what the target failed with, now or earlier */
  async finish({ layers }: Pick<Mirrored, 'layers'>): Promise<void> {
    this.#assertWhole();
    for (let next = this.#next(0); next !== null; next = this.#next(0))
      await this.#copy(layers, next);
  }

  /** Is told of nothing any more. */
  stop(): void {
    this.#stop();
  }

  #note(change: Change): void {
    this.#dirty.grow(byteLength(this.#disk.size));
    this.#dirty.set(change);
  }

  /** From note to block at once: no change is told of to none or to both. */
  #writeThrough(): void {
    const note = this.#stop;
    this.#stop = this.#disk.observe({
      mode: 'block',
      onFailure: 'detach',
      changed: (change) => this.#write(change),
      detached: (cause) => this.#fail(cause),
    });
    note();
  }

  async #write(change: Change): Promise<void> {
    if (change.failed) return this.#note(change);
    const fill = this.#below(this.#disk.layers);
    if (change.source !== null) await this.#target.write(change.offset, change.source, { fill });
    else await this.#target.writeZeroes(change, { fill });
  }

  /** One pass over what is dirty. */
  async #copyOnce({ signal, pass, copied }: MirrorOptions): Promise<void> {
    let at = 0;
    for (let next = this.#next(at); next !== null; next = this.#next(at)) {
      signal?.throwIfAborted();
      await pass(next.length);
      const range = next;
      await this.#disk.holding(range, 'changes', (layers) => this.#copy(layers, range));
      this.#assertWhole();
      copied(range.length);
      at = range.offset + range.length;
    }
  }

  #next(from: number): GuestRange | null {
    return this.#dirty.next(from as GuestOffset, PIECE);
  }

  /** Copies what layers above the target hold of a range, while nobody changes it. */
  async #copy(layers: readonly ChainLayer[], range: GuestRange): Promise<void> {
    const base = layers.findIndex(({ image }) => image === this.#target);
    const top = layers.length - 1;
    const [fill, view] = [this.#below(layers), viewOf(layers, top)];
    for await (const batch of subchainExtents(layers, { base, top }, range))
      for (const { owner, status, offset, length } of batch) {
        if (owner === null) continue;
        if (status === 'zero') await this.#target.writeZeroes({ offset, length }, { fill });
        else await this.#copyBytes(view, { offset, length }, fill);
      }
    this.#dirty.clear(range);
  }

  async #copyBytes(view: CowSource, range: GuestRange, fill: CowSource | null): Promise<void> {
    for (const { offset, length } of splitRange(range, PIECE)) {
      const bytes = new Uint8Array(length);
      await view(offset, bytes);
      await this.#target.write(guestOffset(offset), bytes, { fill });
    }
  }

  /** What lies below the target. @throws DeviceError when the target does not lie below the disk any more */
  #below(layers: readonly ChainLayer[]): CowSource | null {
    const at = layers.findIndex(({ image }) => image === this.#target);
    if (at < 0 || at === layers.length - 1)
      throw new DeviceError(
        'DEVICE_BAD_CHAIN',
        `${this.#target.label}: is no lower layer of the disk any more`,
        { image: this.#target.label },
      );
    return at === 0 ? null : viewOf(layers, at - 1);
  }

  #fail(cause: unknown): void {
    this.#failure ??= { cause };
    this.#broke.resolve(cause);
  }

  #assertWhole(): void {
    if (this.#failure !== null) throw this.#failure.cause;
  }
}
