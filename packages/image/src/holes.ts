import type { OperationOptions, Storage } from '@downfold/storage';
import { alignDown, alignUp, hostOffset } from '@downfold/units';
import { type ExtentBatch, ExtentList, KIND, type Kind } from './extent-batch.ts';

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
 * @param unit guest bytes, a divisor of all borders but the disk's end: holes are told in whole ones
 * @param end of the disk
 */
export async function* withHoles(
  batches: AsyncIterable<ExtentBatch>,
  file: Pick<Storage, 'runAt'>,
  { unit, end, signal }: { readonly unit: number; readonly end: number } & OperationOptions,
): AsyncGenerator<ExtentBatch, void, undefined> {
  const runs = new Runs(file);
  for await (const { length, starts, ends, kinds, hosts } of batches) {
    let list = new ExtentList();
    for (let index = 0; index < length; index++) {
      const start = starts[index] as number;
      const stop = ends[index] as number;
      const kind = kinds[index] as Kind;
      const host = hosts[index] as number;
      // a file has as many runs as a disk has pieces where these are parts of clusters: of what is too short for a hole it is not asked
      if (kind !== KIND.data || alignUp(start, unit) >= lastUnit(stop, unit, end)) {
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

/** Adds data, or a hole with what of it are no whole units as data. */
function addRun(
  list: ExtentList,
  hole: boolean,
  start: number,
  stop: number,
  host: number,
  { unit, end }: { readonly unit: number; readonly end: number },
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
