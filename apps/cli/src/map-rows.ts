import { type OpenChain, type OwnedBatch, subchainExtents } from '@downfold/chain';
import { isPlaced, KIND } from '@downfold/image';
import type { GuestRange } from '@downfold/units';

/** One row of the map, as qemu-img counts: depth 0 is the leaf. Filled again for the next row. */
export interface MapRow {
  start: number;
  length: number;
  depth: number;
  present: boolean;
  zero: boolean;
  /** Both: of a layer that says so, in a hole of its file. */
  data: boolean;
  /** Where it lies in the layer's file; -1: at no plain place. */
  offset: number;
}

/** A row of no bytes. */
export function emptyRow(start: number): MapRow {
  return { start, length: 0, depth: 0, present: false, zero: false, data: false, offset: -1 };
}

/** Where rows go. */
export interface MapSink {
  add(row: Readonly<MapRow>): void;
  /** Called now and then, and at the end: prints what it has collected. */
  flush(): Promise<void>;
}

/** The map of a range, row by row; neighbours that continue one another are one. */
export async function mapRows(
  { layers }: OpenChain,
  range: GuestRange,
  sink: MapSink,
): Promise<void> {
  const top = layers.length - 1;
  const sizes = layers.map(({ image }) => image.geometry.virtualSize);
  // as to qemu-img, what lies at a place of their files is not what the disk shows
  const kinds = layers.map(({ image, facts }) => ({
    sealed: image.encrypted,
    raw: image.format === 'raw',
    // qemu-img does not look for holes there
    external: facts.dataFile !== undefined,
  }));
  const rows = new Joiner(sink);
  for await (const batch of subchainExtents(layers, { base: -1, top }, range, { holes: 1 })) {
    for (let index = 0; index < batch.length; index++) addExtent(rows, batch, index, sizes, kinds);
    await sink.flush();
  }
  rows.end();
  await sink.flush();
}

/**
 * Adds an extent, in two where the layer that decides it ends within: past its end it is zero as well, and to qemu-img one that the layer
 * above leaves unallocated.
 */
function addExtent(
  rows: Joiner,
  { starts, ends, kinds, hosts, owners }: OwnedBatch,
  index: number,
  sizes: readonly number[],
  layers: readonly {
    readonly sealed: boolean;
    readonly raw: boolean;
    readonly external: boolean;
  }[],
): void {
  const [start, end] = [starts[index] as number, ends[index] as number];
  const owner = owners[index] ?? 0;
  const size = sizes[owner] ?? 0;
  const depth = sizes.length - 1 - owner;
  const { sealed = false, raw = false, external = false } = layers[owner] ?? {};
  const kind = external && kinds[index] === KIND.hole ? KIND.data : (kinds[index] as number);
  const zero = kind !== KIND.data && kind !== KIND.compressed;
  // of a raw file the holes are all that it says
  const data = !zero || (kind === KIND.hole && !raw);
  const offset = isPlaced(kind) && !sealed ? (hosts[index] as number) : -1;
  const inside = Math.min(end, size);
  if (start < inside) rows.add(start, inside, depth, kind !== KIND.unallocated, zero, data, offset);
  if (inside < end) rows.add(Math.max(start, size), end, depth - 1, false, zero, data, offset);
}

/** Joins rows. */
class Joiner {
  readonly #sink: MapSink;
  readonly #row: MapRow = emptyRow(0);

  constructor(sink: MapSink) {
    this.#sink = sink;
  }

  add(
    start: number,
    end: number,
    depth: number,
    present: boolean,
    zero: boolean,
    data: boolean,
    offset: number,
  ): void {
    const row = this.#row;
    const next = row.offset < 0 ? -1 : row.offset + row.length;
    const flags = zero === row.zero && data === row.data && present === row.present;
    const same = flags && depth === row.depth;
    if (row.length > 0 && same && offset === next) {
      row.length += end - start;
      return;
    }
    this.end();
    row.start = start;
    row.length = end - start;
    row.depth = depth;
    row.present = present;
    row.zero = zero;
    row.data = data;
    row.offset = offset;
  }

  end(): void {
    if (this.#row.length > 0) this.#sink.add(this.#row);
    this.#row.length = 0;
  }
}
