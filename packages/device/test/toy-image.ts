import { type ExtentBatch, ExtentList, type Image, ImageError } from '@downfold/image';
import type { Storage } from '@downfold/storage';
import {
  alignDown,
  alignUp,
  byteLength,
  ceilDivide,
  type GuestOffset,
  guestOffset,
  hostOffset,
  rangeBetween,
  rangeEnd,
  splitRange,
} from '@downfold/units';

/** Bytes of a cell: two sectors. */
export const CELL = 1024;
const SECTOR = 512;
/** Where the data of the first cell lies; the map of a letter a cell is before it. */
const DATA_AT = 4096;
const DASH = '-'.charCodeAt(0);

/** What a test knows of a toy besides the contract. */
export interface ToyOptions {
  /** Bytes; the last cell may be cut. */
  readonly size: number;
  /** Called before every sector and at every other point where time may pass: the test decides how long. */
  readonly pause?: (what: string, offset: number) => Promise<void> | void;
  readonly writable?: boolean;
  /** A unit of its own for the geometry; 1: says it has none. */
  readonly unit?: number;
  readonly isBacked?: boolean;
  readonly zeroesAsData?: boolean;
}

/**
 * A format for tests of what lies above images. It keeps the contract, and no more: changes of one image are queued, one sector is
 * written after the other, overlapping requests tear each other. A flush makes data durable, then the map (W4).
 */
export class ToyImage implements Image {
  readonly format = 'toy';
  readonly encrypted = false;
  readonly mark = null;
  readonly fingerprint = '00000000';
  readonly zeroesAsData: boolean;
  readonly label: string;
  readonly file: Storage;
  readonly data: Storage;
  readonly writable: boolean;
  readonly backing: Image['backing'];
  flushes = 0;
  isClosed = false;
  readonly #options: ToyOptions;
  #size: number;
  /** `-` unallocated, `d`ata, `z`ero. */
  #cells: Uint8Array;
  #turn: Promise<unknown> = Promise.resolve();

  constructor(storage: Storage, options: ToyOptions, map?: Uint8Array) {
    this.file = storage;
    this.data = storage;
    this.label = storage.label;
    this.zeroesAsData = options.zeroesAsData ?? false;
    this.writable = options.writable ?? true;
    this.backing = options.isBacked ? { name: 'below', format: 'toy' } : null;
    this.#options = options;
    this.#size = options.size;
    this.#cells = map ?? new Uint8Array(ceilDivide(options.size, CELL)).fill(DASH);
  }

  /** Opens what a flush left on the storage. */
  static async open(storage: Storage, options: ToyOptions): Promise<ToyImage> {
    const map = new Uint8Array(ceilDivide(options.size, CELL));
    await storage.read(hostOffset(0), map);
    return new ToyImage(
      storage,
      options,
      map.map((cell) => cell || DASH),
    );
  }

  get geometry(): Image['geometry'] {
    const unit = byteLength(this.#options.unit ?? CELL);
    return {
      virtualSize: byteLength(this.#size),
      clusterSize: unit,
      allocationGranularity: unit,
    };
  }

  /** The map as text. */
  get cells(): string {
    return new TextDecoder().decode(this.#cells);
  }

  async *extents(range: Parameters<Image['extents']>[0]): AsyncGenerator<ExtentBatch> {
    this.#assertInside(range.offset, range.length);
    for (const { offset, length } of splitRange(range, CELL)) {
      await this.#pause('extents', offset);
      const cell = this.#cellAt(offset);
      const host = hostOffset(DATA_AT + offset);
      if (cell === 'd') yield ExtentList.of([{ offset, length, status: 'data', host }]);
      else if (cell === 'z')
        yield ExtentList.of([{ offset, length, status: 'zero', preallocated: false }]);
      else yield ExtentList.of([{ offset, length, status: 'unallocated' }]);
    }
  }

  async read(...[offset, target, below, options]: Parameters<Image['read']>): Promise<void> {
    this.#assertInside(offset, target.length);
    const range = rangeBetween(offset, offset + target.length);
    for (const piece of splitRange(range, SECTOR)) {
      options?.signal?.throwIfAborted();
      await this.#pause('read', piece.offset);
      const part = target.subarray(piece.offset - offset, rangeEnd(piece) - offset);
      const cell = this.#cellAt(piece.offset);
      if (cell === 'd') await this.data.read(hostOffset(DATA_AT + piece.offset), part);
      else if (cell === '-' && below !== null) await below(piece.offset, part);
      else part.fill(0);
    }
  }

  write(...[offset, source, options]: Parameters<Image['write']>): Promise<void> {
    return this.#queued(offset, source.length, async () => {
      const range = rangeBetween(offset, offset + source.length);
      for (const piece of splitRange(range, SECTOR)) {
        options.signal?.throwIfAborted();
        await this.#complete(piece.offset, options.fill);
        await this.#pause('write', piece.offset);
        const part = source.subarray(piece.offset - offset, rangeEnd(piece) - offset);
        await this.data.write(hostOffset(DATA_AT + piece.offset), part, { what: 'data' });
      }
    });
  }

  writeZeroes(...[range, { fill }]: Parameters<Image['writeZeroes']>): Promise<void> {
    return this.#queued(range.offset, range.length, async () => {
      for (const piece of splitRange(range, CELL)) {
        await this.#pause('zero', piece.offset);
        const whole = piece.length === CELL || rangeEnd(piece) === this.#size;
        if (whole && piece.offset % CELL === 0) this.#set(piece.offset, 'z');
        else {
          await this.#complete(piece.offset, fill);
          const zeros = new Uint8Array(piece.length);
          await this.data.write(hostOffset(DATA_AT + piece.offset), zeros, { what: 'data' });
        }
      }
    });
  }

  deallocate(...[range]: Parameters<Image['deallocate']>): Promise<void> {
    return this.#queued(range.offset, range.length, async () => {
      const end = rangeEnd(range) === this.#size ? alignUp(this.#size, CELL) : rangeEnd(range);
      for (let at: number = alignUp(range.offset, CELL); at + CELL <= end; at += CELL) {
        await this.#pause('deallocate', at);
        this.#set(at, '-');
      }
    });
  }

  resize(...[size, { fill }]: Parameters<Image['resize']>): Promise<void> {
    return this.#queued(0, 0, async () => {
      const cells = new Uint8Array(ceilDivide(size, CELL)).fill(
        fill === null ? DASH : 'z'.charCodeAt(0),
      );
      if (fill !== null && this.#size % CELL !== 0) await this.#complete(this.#size, fill);
      cells.set(this.#cells);
      this.#cells = cells;
      this.#size = size;
    });
  }

  /** Seals the map when it is called, as the contract has it: what comes later is not waited for. */
  async flush(): Promise<void> {
    this.flushes++;
    await this.#pause('flush', 0);
    const map = this.#cells.slice();
    await this.data.flush('toy: data');
    await this.data.write(hostOffset(0), map, { what: 'map' });
    await this.data.flush('toy: map');
  }

  async copyFrom(): Promise<void> {
    await refuse();
  }
  async describe(): Promise<never> {
    return refuse();
  }
  async setBacking(): Promise<void> {
    await refuse();
  }
  async assertRoomFor(): Promise<void> {
    await refuse();
  }
  async setMark(): Promise<void> {
    await refuse();
  }
  async reclaimLeaks(): Promise<number> {
    return refuse();
  }
  async stage(): Promise<never> {
    return refuse();
  }
  async check(): Promise<never> {
    return refuse();
  }
  async [Symbol.asyncDispose](): Promise<void> {
    this.isClosed = true;
    await this.data[Symbol.asyncDispose]();
  }

  /** Makes the cell at `at` data, with what it shows. */
  async #complete(at: number, fill: Parameters<Image['read']>[2]): Promise<void> {
    if (this.#cellAt(at) === 'd') return;
    const start = alignDown(at, CELL);
    const bytes = new Uint8Array(CELL);
    const inside = bytes.subarray(0, Math.min(CELL, this.#size - start));
    if (this.#cellAt(at) === '-') await fill?.(guestOffset(start), inside);
    await this.#pause('complete', start);
    await this.data.write(hostOffset(DATA_AT + start), bytes, { what: 'fill' });
    this.#set(start, 'd');
  }

  #queued(offset: number, length: number, work: () => Promise<void>): Promise<void> {
    if (!this.writable) return Promise.reject(new ImageError('IMAGE_READ_ONLY', this.label));
    this.#assertInside(offset, length);
    const turn = this.#turn.then(work);
    this.#turn = turn.catch(() => undefined);
    return turn;
  }

  #cellAt(at: number): string {
    return String.fromCharCode(this.#cells[Math.floor(at / CELL)] ?? DASH);
  }

  #set(at: number, cell: string): void {
    this.#cells[Math.floor(at / CELL)] = cell.charCodeAt(0);
  }

  #pause(what: string, offset: number): Promise<void> | void {
    return this.#options.pause?.(what, offset);
  }

  #assertInside(offset: GuestOffset | number, length: number): void {
    if (this.isClosed) throw new ImageError('IMAGE_CLOSED', this.label);
    if (offset + length > this.#size) throw new ImageError('IMAGE_RANGE', this.label);
  }
}

async function refuse(): Promise<never> {
  throw new ImageError('IMAGE_UNSUPPORTED', 'a toy cannot do that');
}
