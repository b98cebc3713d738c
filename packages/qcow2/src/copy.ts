import type { CowSource, ImageCopyPiece } from '@downfold/image';
import type { CopyPiece } from '@downfold/storage';
import { byteLength, hostOffset } from '@downfold/units';
import { allocate, allocateAtOnce, ownTable, type Place, release } from './allocate.ts';
import { isMuchDirty } from './flush.ts';
import { isExternal } from './l2-entry.ts';
import type { L2Table } from './l2-table.ts';
import { assertNoOverlap, overlapIn } from './overlap.ts';
import type { Qcow2State } from './state.ts';
import { map, type Run, runIn, wholeEnd, writeImage } from './write.ts';

/** Clusters of one table that have their place in the file, and whose bytes [from, to) of the disk are still to be copied there. */
interface Placed {
  readonly run: Run;
  /** Byte of the first cluster in the file. */
  readonly host: number;
  readonly from: number;
  readonly to: number;
}

/**
 * Writes pieces of other files, in order, and resolves with how many of them: fewer when much metadata waits for a flush. Whole units of many
 * pieces get their places first, fresh ones side by side, and are then copied in one call; the tables change after that, as `writeImage`
 * has it. What cuts units is written by itself. To be run in the mutation queue.
 */
export async function copyIntoImage(
  state: Qcow2State,
  pieces: readonly ImageCopyPiece[],
  fill: CowSource | null,
): Promise<number> {
  const batch = new Batch(state);
  let done = 0;
  try {
    for (const piece of pieces) {
      if (done > 0 && isMuchDirty(state, batch.tables)) break;
      if (!batch.placeAtOnce(piece)) await copyPiece(state, batch, piece, fill);
      done += 1;
    }
    await batch.copy();
  } finally {
    batch.letGo();
  }
  return done;
}

async function copyPiece(
  state: Qcow2State,
  batch: Batch,
  piece: ImageCopyPiece,
  fill: CowSource | null,
): Promise<void> {
  const { clusterSize } = state.geometry;
  const { offset, source } = piece;
  const end = offset + piece.length;
  for (let at: number = offset; at < end; ) {
    if (batch.end > at) await batch.copy();
    const table = await batch.tableOf(at);
    const run = runIn(state, table, at, end);
    const whole = wholeEnd(state, run, at, end);
    const from = piece.from + (at - offset);
    if (whole > at) {
      at = await batch.place(run, at, whole, source, from);
      continue;
    }
    // the rest of the unit is read, and has to be what earlier pieces left
    await batch.copy();
    const part = Math.min(end, at - (at % clusterSize) + clusterSize);
    const bytes = new Uint8Array(part - at);
    await source.read(hostOffset(from), bytes);
    await writeImage(state, at, bytes, fill);
    at = part;
  }
}

/** Whether its clusters have the place that they will be written to. */
function isPlaced({ way }: Run): boolean {
  return way === 'in place' || way === 'in place, zero';
}

/** Pieces that have their places, until they are copied. */
class Batch {
  readonly #state: Qcow2State;
  readonly #placed: Placed[] = [];
  readonly #pieces: CopyPiece[] = [];
  /** Fresh clusters that no entry points to yet. */
  readonly #fresh: Place[] = [];
  #table: L2Table | null = null;
  /** Byte of the disk where the last of them ends; 0: there are none. What comes before may be theirs, and its table does not say so yet. */
  end = 0;
  /** How many tables they may change. */
  tables = 0;

  constructor(state: Qcow2State) {
    this.#state = state;
  }

  /** The table of guest byte `at`, ready to be changed. */
  async tableOf(at: number): Promise<L2Table> {
    const index = Math.floor(at / this.#state.geometry.l2Reach);
    if (this.#table?.index === index) return this.#table;
    this.#table = await ownTable(this.#state, index);
    this.tables += 1;
    return this.#table;
  }

  /** Gives a piece its place where that needs no waiting: whole units of one run. False: it does. */
  placeAtOnce({ offset, length, source, from }: ImageCopyPiece): boolean {
    const state = this.#state;
    const table = this.#table;
    const at: number = offset;
    const end = offset + length;
    if (this.end > at || table?.index !== Math.floor(at / state.geometry.l2Reach)) return false;
    const run = runIn(state, table, at, end);
    if (wholeEnd(state, run, at, end) !== end) return false;
    const start = at - (at % state.geometry.clusterSize);
    const count = Math.ceil((end - start) / state.geometry.clusterSize);
    const place = this.#placeAtOnce(run, start, count);
    if (place === null || place.count < count) return false;
    this.#add(run, place.offset, at, end, source, from);
    return true;
  }

  /** Gives bytes [at, to) of a run, whole units, a place. Returns where it stopped. */
  async place(
    run: Run,
    at: number,
    to: number,
    source: CopyPiece['source'],
    from: number,
  ): Promise<number> {
    const { clusterSize } = this.#state.geometry;
    const start = at - (at % clusterSize);
    const place = await this.#placeOf(run, start, Math.ceil((to - start) / clusterSize));
    const end = Math.min(to, start + place.count * clusterSize);
    this.#add(run, place.offset, at, end, source, from);
    return end;
  }

  /** Bytes [at, end) of a run, whose first cluster lies at `host`. */
  #add(
    run: Run,
    host: number,
    at: number,
    end: number,
    source: CopyPiece['source'],
    from: number,
  ): void {
    this.#placed.push({ run, host, from: at, to: end });
    this.end = end;
    this.#pieces.push({
      source,
      from: hostOffset(from),
      to: hostOffset(host + (at % this.#state.geometry.clusterSize)),
      length: byteLength(end - at),
    });
  }

  /** Where a run goes that starts at guest byte `start`. */
  async #placeOf(run: Run, start: number, count: number): Promise<Place> {
    const place = this.#placeAtOnce(run, start, count);
    if (place !== null) return place;
    const fresh = await allocate(this.#state, count);
    this.#fresh.push(fresh);
    return fresh;
  }

  /** The same: the place it has, or that the piece before gave its first cluster, or a fresh one. Null: that needs waiting. */
  #placeAtOnce(run: Run, start: number, count: number): Place | null {
    if (isPlaced(run)) return { offset: run.host, count };
    // in an external data file every guest byte has its own place
    if (isExternal(this.#state)) return { offset: start, count };
    const shared = this.#sharedWith(start);
    if (shared !== null) return { offset: shared, count: 1 };
    const fresh = allocateAtOnce(this.#state, count);
    if (fresh !== null) this.#fresh.push(fresh);
    return fresh;
  }

  /** The place of the cluster at guest byte `start`, where the piece before ended in it; null: it did not. */
  #sharedWith(start: number): number | null {
    const last = this.#placed.at(-1);
    if (last === undefined) return null;
    const { clusterSize } = this.#state.geometry;
    if (last.to - 1 - ((last.to - 1) % clusterSize) !== start) return null;
    return last.host + (start - (last.from - (last.from % clusterSize)));
  }

  /** Copies what has its place; after that, and not before, the tables say so. */
  async copy(): Promise<void> {
    const state = this.#state;
    // whoever changes it meanwhile may find it in the file again, and change that
    this.#table = null;
    if (this.#placed.length === 0) return;
    for (const { to, length } of isExternal(state) ? [] : this.#pieces) {
      // a promise for each piece would take longer than its copy
      if (overlapIn(state, to, length, null) !== null)
        await assertNoOverlap(state, to, length, null);
      // preallocated zeros may lie past the end
      state.fileEnd = Math.max(state.fileEnd, to + length);
    }
    await state.data.copyFrom(this.#pieces, { what: 'data' });
    const { clusterSize } = state.geometry;
    for (const { run, host, from, to } of this.#placed)
      map(state, run, host, from - (from % clusterSize), from, to);
    for (const list of [this.#placed, this.#pieces, this.#fresh]) list.length = 0;
    this.end = 0;
    this.tables = 0;
  }

  /** Lets fresh clusters go that nothing points to: something failed. */
  letGo(): void {
    for (const { offset, count } of this.#fresh)
      release(this.#state, offset, count * this.#state.geometry.clusterSize);
  }
}
