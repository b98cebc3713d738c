import type { ByteLength, GuestOffset, HostOffset } from '@downfold/units';
import type { Extent } from './extent.ts';

/** What an extent is, as a number: for columns. */
export const KIND = {
  unallocated: 0,
  data: 1,
  compressed: 2,
  zero: 3,
  preallocatedZero: 4,
  /** Data whose place in the file is a hole: it reads as zeros. Only where holes were asked for. As an `Extent` it is `zero`, preallocated. */
  hole: 5,
} as const;
export type Kind = (typeof KIND)[keyof typeof KIND];

/**
 * Extents in the order of the disk, as columns: a disk has millions, and an object each would cost more than reading the metadata. Whoever
 * has time goes through them as `Extent` objects, made one at a time.
 */
export interface ExtentBatch extends Iterable<Extent> {
  readonly length: number;
  /** First guest byte of each extent, and the one behind it. */
  readonly starts: ArrayLike<number>;
  readonly ends: ArrayLike<number>;
  /** A `Kind` each. */
  readonly kinds: ArrayLike<number>;
  /** Of what has its place in the file (`isPlaced`): byte of it for the first guest byte; others: any. */
  readonly hosts: ArrayLike<number>;
}

/** The extent at `index` of a batch, which must be there. */
export function extentAt({ starts, ends, kinds, hosts }: ExtentBatch, index: number): Extent {
  const start = starts[index] as number;
  const offset = start as GuestOffset;
  const length = ((ends[index] as number) - start) as ByteLength;
  switch (kinds[index] as Kind) {
    case KIND.data:
      return { offset, length, status: 'data', host: hosts[index] as HostOffset };
    case KIND.compressed:
      return { offset, length, status: 'compressed' };
    case KIND.unallocated:
      return { offset, length, status: 'unallocated' };
    case KIND.zero:
      return { offset, length, status: 'zero', preallocated: false };
    case KIND.preallocatedZero:
    case KIND.hole:
      return { offset, length, status: 'zero', preallocated: true };
  }
}

/** Whether what an extent is has its place in the file, where its bytes lie or would. */
export function isPlaced(kind: number | undefined): boolean {
  return kind === KIND.data || kind === KIND.preallocatedZero || kind === KIND.hole;
}

/** Whether what an extent is reads as zeros that hide what lies below. */
export function isZeroKind(kind: number | undefined): boolean {
  return kind === KIND.zero || kind === KIND.preallocatedZero || kind === KIND.hole;
}

/** Columns that were made elsewhere. */
export class ExtentColumns implements ExtentBatch {
  readonly length: number;
  readonly starts: Float64Array;
  readonly ends: Float64Array;
  readonly kinds: Uint8Array;
  readonly hosts: Float64Array;

  constructor(starts: Float64Array, ends: Float64Array, kinds: Uint8Array, hosts: Float64Array) {
    this.length = starts.length;
    this.starts = starts;
    this.ends = ends;
    this.kinds = kinds;
    this.hosts = hosts;
  }

  *[Symbol.iterator](): Generator<Extent, void, undefined> {
    for (let index = 0; index < this.length; index++) yield extentAt(this, index);
  }
}

/** A batch that is put together. */
export class ExtentList implements ExtentBatch {
  readonly starts: number[] = [];
  readonly ends: number[] = [];
  readonly kinds: number[] = [];
  readonly hosts: number[] = [];

  /** These, as they are: nothing is joined. */
  static of(extents: Iterable<Extent>): ExtentList {
    const list = new ExtentList();
    for (const extent of extents) list.push(extent);
    return list;
  }

  get length(): number {
    return this.starts.length;
  }

  *[Symbol.iterator](): Generator<Extent, void, undefined> {
    for (let index = 0; index < this.length; index++) yield extentAt(this, index);
  }

  /** Adds guest bytes [start, end), which follow the last extent; what goes on with it is joined to it. `host` counts for what is placed. */
  add(kind: Kind, start: number, end: number, host: number): void {
    const last = this.starts.length - 1;
    if (last >= 0 && this.continues(last, kind, start, host)) this.ends[last] = end;
    else this.append(kind, start, end, host);
  }

  /** Whether what begins at `start` goes on with the extent at `index`. */
  protected continues(index: number, kind: number, start: number, host: number): boolean {
    if (this.kinds[index] !== kind || this.ends[index] !== start) return false;
    if (!isPlaced(kind)) return true;
    return host - start === (this.hosts[index] as number) - (this.starts[index] as number);
  }

  /** Appends an extent: nothing is joined. */
  protected push(extent: Extent): void {
    const { offset, length, status } = extent;
    const kind = status === 'zero' && extent.preallocated ? KIND.preallocatedZero : KIND[status];
    this.append(kind, offset, offset + length, status === 'data' ? extent.host : 0);
  }

  protected append(kind: number, start: number, end: number, host: number): void {
    this.starts.push(start);
    this.ends.push(end);
    this.kinds.push(kind);
    this.hosts.push(host);
  }
}
