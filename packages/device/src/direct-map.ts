import { type ChainLayer, type OwnedExtent, subchainExtents } from '@downfold/chain';
import type { Image } from '@downfold/image';
import {
  alignDown,
  alignUp,
  type DirectReads,
  type GuestRange,
  guestOffset,
  rangeBetween,
  rangeEnd,
  SharedMap,
} from '@downfold/units';

/** Units of the map: what most formats allocate, and no smaller than a page. */
const LARGEST_UNIT = 65_536;
const SMALLEST_UNIT = 4096;
/** Windows that wait to be learnt; more misses are not noted, and come again. */
const MOST_PENDING = 16;
/** Windows behind one that was asked for that are learnt with it, where there is room: who reads on need not ask for each, and wait. */
const AHEAD = 8;
/** A window in which so much changes while it is learnt is left for later. */
const MOST_HOLES = 256;

/** Bytes [start, end) that are being changed. */
export interface Span {
  readonly start: number;
  readonly end: number;
}

/** Where bytes lie: in which file, and at which byte. Null: they are zeros. */
interface Place {
  readonly descriptor: number | null;
  readonly host: number;
}

/** Runs a look at the layers in the order of requests. */
type Look = (
  range: GuestRange,
  work: (layers: readonly ChainLayer[]) => Promise<void>,
) => Promise<void>;

/**
 * Keeps the map of one disk true. A reader that looked a place up reads there until it leaves; so nothing may happen to these bytes before they
 * are forgotten and nobody is inside: the host's clusters given to others, their file closed, or bytes of the disk changed while a request is whole
 * for the others. `begin` and `suspend` see to that, before each change and each section; what was looked up meanwhile is not put into the map.
 *
 * Below the active layer a job may move clusters of an image without asking the disk, since what the disk shows stays the same: such an image says
 * before it gives the place of bytes to others, and all is forgotten then. One that does not is left out while it is open for writing. Images
 * without clusters move nothing.
 */
export class DirectMap implements DirectReads {
  readonly map: SharedMap = new SharedMap();
  readonly #look: Look;
  readonly #busy: Set<Span> = new Set();
  /** What changed since the window that is being learnt was looked at; null: none is. */
  #holes: Span[] | null = null;
  /** Windows, by their first byte, that are being learnt or wait for that. */
  readonly #pending: Set<number> = new Set();
  /** Windows of which something was forgotten. */
  readonly #patchy: Set<number> = new Set();
  #last: Promise<void> = Promise.resolve();
  #suspended = true;
  /** Counts how often all was forgotten: what was asked for before is learnt no more. */
  #epoch = 0;
  /** Images that say before they give the place of bytes to others. */
  readonly #telling: Map<Image, Disposable> = new Map();
  #size = 0;
  /** A change moves no bytes further away than this: the largest cluster. */
  #reach = 1;

  /** It is suspended until `resume`. */
  constructor(look: Look) {
    this.#look = look;
  }

  /** Forgets what a change may touch; `end` when the change is over. It may not start before `map.idle`. */
  begin({ offset, length }: GuestRange): Span | null {
    if (length === 0 || this.#suspended) return null;
    const span = {
      start: alignDown(offset, this.#reach),
      end: alignUp(offset + length, this.#reach),
    };
    this.#busy.add(span);
    this.#holes?.push(span);
    this.map.forget(span.start, span.end);
    this.#notePatches(span);
    return span;
  }

  end(span: Span | null): void {
    if (span !== null) this.#busy.delete(span);
  }

  /** Forgets all, and learns nothing until `resume`. Resolves when no reader looks at anything any more. No request runs. */
  async suspend(): Promise<void> {
    this.#suspended = true;
    await this.#forgetAll();
    for (const listening of this.#telling.values()) listening[Symbol.dispose]();
    this.#telling.clear();
  }

  async #forgetAll(): Promise<void> {
    this.#epoch += 1;
    this.#patchy.clear();
    this.map.forgetAll();
    await this.map.idle();
  }

  /** Goes on with these layers, after `suspend`. */
  resume(layers: readonly ChainLayer[], size: number): void {
    const { map } = this;
    const units = layers.map(({ image }) => image.geometry.allocationGranularity);
    const smallest = Math.min(LARGEST_UNIT, ...units.filter((unit) => unit > 1));
    map.use(Math.max(SMALLEST_UNIT, smallest));
    this.#reach = Math.max(...layers.map(({ image }) => image.geometry.clusterSize));
    this.#size = size;
    for (const { image } of layers.slice(0, -1)) {
      const listening = image.writable ? image.beforeReuse?.(() => this.#forgetAll()) : null;
      if (listening != null) this.#telling.set(image, listening);
    }
    this.#suspended = false;
  }

  learn(offset: number, length: number): void {
    const { map } = this;
    if (this.#suspended || !map.isRead) return;
    const first = alignDown(offset, map.windowBytes);
    const isKnown = map.has(first);
    if (isKnown && !this.#patchy.has(first)) return;
    if (isKnown) {
      const stop = Math.min(
        this.#size,
        first + map.windowBytes,
        alignUp(offset + length, map.unit),
      );
      this.#ask(first, rangeBetween(guestOffset(alignDown(offset, map.unit)), stop));
      return;
    }
    this.#askWhole(first);
    for (let ahead = 1; ahead <= AHEAD; ahead++) {
      const next = first + ahead * map.windowBytes;
      if (next < this.#size && map.hasRoom(next)) this.#askWhole(next);
    }
  }

  #askWhole(first: number): void {
    const stop = Math.min(this.#size, first + this.map.windowBytes);
    this.#ask(first, rangeBetween(guestOffset(first), stop));
  }

  /** Has a part of the window `first` be learnt, after all that was asked for before. */
  #ask(first: number, range: GuestRange): void {
    if (this.#pending.has(first) || this.#pending.size >= MOST_PENDING) return;
    this.#pending.add(first);
    const done = (): void => {
      this.#holes = null;
      this.#pending.delete(first);
    };
    // what could not be looked at stays unknown, and is read by requests, which say what is wrong
    const epoch = this.#epoch;
    this.#last = this.#last.then(() => this.#learn(range, epoch)).then(done, done);
  }

  async #learn(range: GuestRange, epoch: number): Promise<void> {
    await this.#look(range, async (layers) => {
      const { map } = this;
      // the layers may be others by now, with another unit
      if (epoch !== this.#epoch) return;
      const holes = [...this.#busy];
      this.#holes = holes;
      const first = alignDown(range.offset, map.windowBytes);
      if (!map.has(first)) await map.claim(first);
      // until all of it was looked at
      this.#patchy.add(first);
      const all = { base: -1, top: layers.length - 1 };
      for await (const batch of subchainExtents(layers, all, range)) {
        // what is put into a window that was forgotten meanwhile nobody finds
        if (holes.length > MOST_HOLES) return;
        for (const extent of batch) this.#put(layers, extent, holes);
      }
      const stop = Math.min(this.#size, first + map.windowBytes);
      if (range.offset === first && rangeEnd(range) >= stop) this.#patchy.delete(first);
      for (const hole of holes) this.#notePatches(hole);
    });
  }

  /** Tells readers of the whole units of an extent, but for those that a hole touches. */
  #put(layers: readonly ChainLayer[], extent: OwnedExtent, holes: readonly Span[]): void {
    const { map } = this;
    const place = this.#placeOf(layers, extent);
    if (place === null) return;
    const until = rangeEnd(extent);
    const end = until >= this.#size ? until : alignDown(until, map.unit);
    for (let start: number = alignUp(extent.offset, map.unit); start < end; ) {
      const hole = firstIn(holes, start, end);
      const stop = hole === null ? end : Math.max(start, alignDown(hole.start, map.unit));
      if (stop > start)
        map.put(start, stop, place.descriptor, place.host + (start - extent.offset));
      start = hole === null ? end : alignUp(hole.end, map.unit);
    }
  }

  /** Where the first byte of an extent lies: in which file (null: they are zeros), and at which byte. Null: not where a reader could read it. */
  #placeOf(layers: readonly ChainLayer[], extent: OwnedExtent): Place | null {
    if (extent.status === 'compressed') return null;
    if (extent.status !== 'data') return { descriptor: null, host: 0 };
    const owner = layers[extent.owner ?? -1]?.image;
    if (owner === undefined) return null;
    // an image that moves bytes when the disk does not know of it
    const isActive = owner === layers.at(-1)?.image;
    const movesThem = owner.writable && !isActive && owner.geometry.clusterSize > 1;
    if (movesThem && !this.#telling.has(owner)) return null;
    const { descriptor } = owner.data;
    return descriptor === null ? null : { descriptor, host: extent.host };
  }

  #notePatches({ start, end }: Span): void {
    for (const window of this.map.windowsIn(start, Math.min(end, this.#size)))
      this.#patchy.add(window);
  }
}

/** Of the holes that touch [start, end), the one that begins first. */
function firstIn(holes: readonly Span[], start: number, end: number): Span | null {
  let first: Span | null = null;
  for (const hole of holes)
    if (hole.start < end && hole.end > start && hole.start < (first?.start ?? end)) first = hole;
  return first;
}
