import type { OperationOptions, Storage } from '@downfold/storage';
import { alignDown, alignUp, hostOffset } from '@downfold/units';
import type { Extent } from './extent.ts';
import { type ExtentBatch, ExtentList, extentAt, KIND, type Kind } from './extent-batch.ts';

/** Options of `Image.extents`. */
export interface ExtentsOptions extends OperationOptions {
  /**
   * Data that lies in holes of the file is told as such: where whole units of so many guest bytes do, and whole clusters. Like data, a hole is true for
   * who keeps writers away from it, and no longer. Default: holes are data.
   */
  readonly holes?: number | undefined;
}

/** Bytes: smaller holes take longer to find than to read. For `ExtentsOptions.holes` of whoever copies. */
export const WORTHWHILE_HOLE_BYTES = 65_536;

/** Extents of one batch at most, but for what was one batch already. */
const BATCH_EXTENTS = 1024;

/**
 * The same extents, data that lies in holes of `file` apart. A file that has no holes behind the first extent is asked once.
 * @param unit guest bytes, a power of two: holes are told in whole ones
 * @param end of the disk
 */
export async function* withHoles(
  batches: AsyncIterable<ExtentBatch>,
  file: Pick<Storage, 'runAt'>,
  { unit, end, signal }: { readonly unit: number; readonly end: number } & OperationOptions,
): AsyncGenerator<ExtentBatch, void, undefined> {
  const runs = new Runs(file);
  for await (const batch of batches) {
    const hull = hullOf(batch, { unit, end });
    if (hull !== null && !runs.covers(hull.from)) await runs.ask(hull.from, signal);
    // most lie in one run as a whole, and need no list of their own
    if (hull === null || (hull.to <= runs.end && (hull.isWhole || !runs.hole))) {
      yield hull === null || !runs.hole ? batch : new HoleBatch(batch, { unit, end });
      continue;
    }
    const { length, starts, ends, kinds, hosts } = batch;
    let list = new ExtentList();
    for (let index = 0; index < length; index++) {
      const start = starts[index] as number;
      const stop = ends[index] as number;
      const kind = kinds[index] as Kind;
      const host = hosts[index] as number;
      if (!mayHoldHole(kind, start, stop, { unit, end })) {
        list.add(kind, start, stop, host);
        continue;
      }
      for (let at = start; at < stop; ) {
        const place = host + (at - start);
        if (!runs.covers(place)) await runs.ask(place, signal);
        const next = Math.min(stop, at + (runs.end - place));
        addRun(list, runs.hole, at, next, place, { unit, end });
        at = next;
        if (list.length < BATCH_EXTENTS) continue;
        yield list;
        list = new ExtentList();
      }
    }
    if (list.length > 0) yield list;
  }
}

/** How a disk is divided. */
interface Units {
  /** A power of two. */
  readonly unit: number;
  readonly end: number;
}

/** A file has as many runs as a disk has pieces where these are parts of clusters: of what is too short for a hole it is not asked. */
function mayHoldHole(kind: number, start: number, stop: number, { unit, end }: Units): boolean {
  if (kind !== KIND.data) return false;
  return stop - start >= 2 * unit || alignUp(start, unit) < lastUnit(stop, unit, end);
}

/** Whether a unit may begin or end here. By division: of numbers that large a remainder takes ten times as long, and both are exact. */
function isBorder(at: number, { unit, end }: Units): boolean {
  return at === end || Math.floor(at / unit) * unit === at;
}

/** Where in the file all of a batch lies that may hold holes; null: nothing may. */
interface Hull {
  readonly from: number;
  readonly to: number;
  /** Whether all of it is whole units. */
  readonly isWhole: boolean;
}

function hullOf({ length, starts, ends, kinds, hosts }: ExtentBatch, units: Units): Hull | null {
  let from = Number.POSITIVE_INFINITY;
  let to = 0;
  let isWhole = true;
  for (let index = 0; index < length; index++) {
    const start = starts[index] as number;
    const stop = ends[index] as number;
    if (!mayHoldHole(kinds[index] as number, start, stop, units)) continue;
    const host = hosts[index] as number;
    if (host < from) from = host;
    if (host + (stop - start) > to) to = host + (stop - start);
    if (isWhole && !(isBorder(start, units) && isBorder(stop, units))) isWhole = false;
  }
  return to === 0 ? null : { from, to, isWhole };
}

/** A batch whose data lies in a hole, but for what is too short. */
class HoleBatch implements ExtentBatch {
  readonly length: number;
  readonly starts: ArrayLike<number>;
  readonly ends: ArrayLike<number>;
  readonly kinds: Uint8Array;
  readonly hosts: ArrayLike<number>;

  constructor({ length, starts, ends, kinds, hosts }: ExtentBatch, units: Units) {
    this.length = length;
    this.starts = starts;
    this.ends = ends;
    this.hosts = hosts;
    this.kinds = new Uint8Array(kinds);
    for (let index = 0; index < length; index++) {
      const [start, stop] = [starts[index] as number, ends[index] as number];
      if (mayHoldHole(this.kinds[index] as number, start, stop, units))
        this.kinds[index] = KIND.hole;
    }
  }

  *[Symbol.iterator](): Generator<Extent, void, undefined> {
    for (let index = 0; index < this.length; index++) yield extentAt(this, index);
  }
}

/** Adds data, or a hole with what of it are no whole units as data. */
function addRun(
  list: ExtentList,
  hole: boolean,
  start: number,
  stop: number,
  host: number,
  { unit, end }: Units,
): void {
  const from = alignUp(start, unit);
  const to = lastUnit(stop, unit, end);
  if (!hole || from >= to) {
    list.add(KIND.data, start, stop, host);
    return;
  }
  if (start < from) list.add(KIND.data, start, from, host);
  list.add(KIND.hole, from, to, host + (from - start));
  if (to < stop) list.add(KIND.data, to, stop, host + (to - start));
}

/** Where the whole units before guest byte `stop` end. The last one of the disk is whole. */
function lastUnit(stop: number, unit: number, end: number): number {
  return stop === end ? stop : alignDown(stop, unit);
}

/** The run of a file that was asked for last. */
class Runs {
  hole = false;
  end = 0;
  #start = 0;
  readonly #file: Pick<Storage, 'runAt'>;

  constructor(file: Pick<Storage, 'runAt'>) {
    this.#file = file;
  }

  covers(place: number): boolean {
    return this.#start <= place && place < this.end;
  }

  async ask(place: number, signal: AbortSignal | undefined): Promise<void> {
    const { hole, end } = await this.#file.runAt(hostOffset(place), { signal });
    this.hole = hole;
    this.end = end;
    this.#start = place;
  }
}
