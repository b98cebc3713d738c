import { type Extent, type ExtentBatch, ExtentList, extentAt, KIND } from '@downfold/image';

/**
 * A run of the merged view of several layers. `owner` is the layer that decides, by its index or as the caller calls it; for
 * `unallocated` (no layer above the base decides) it is null. A `zero` that comes from the end of a short layer is owned by that layer.
 */
export type OwnedExtent<Owner = number> = Extent & { readonly owner: Owner | null };

/** Extents of a merged view, as columns, with a column of who decides them. */
export interface OwnedBatch<Owner = number> extends ExtentBatch, Iterable<OwnedExtent<Owner>> {
  readonly owners: readonly (Owner | null)[];
  [Symbol.iterator](): Iterator<OwnedExtent<Owner>, void, undefined>;
}

/** A batch of one layer: it decides all that is not unallocated. */
export class OwnedColumns<Owner> implements OwnedBatch<Owner> {
  readonly length: number;
  readonly starts: ArrayLike<number>;
  readonly ends: ArrayLike<number>;
  readonly kinds: ArrayLike<number>;
  readonly hosts: ArrayLike<number>;
  readonly owners: readonly (Owner | null)[];

  constructor({ length, starts, ends, kinds, hosts }: ExtentBatch, owner: Owner) {
    this.length = length;
    this.starts = starts;
    this.ends = ends;
    this.kinds = kinds;
    this.hosts = hosts;
    const owners = new Array<Owner | null>(length).fill(owner);
    for (let index = 0; index < length; index++)
      if (kinds[index] === KIND.unallocated) owners[index] = null;
    this.owners = owners;
  }

  *[Symbol.iterator](): Generator<OwnedExtent<Owner>, void, undefined> {
    yield* ownedExtents(this);
  }
}

/** A batch that is put together. */
export class OwnedList<Owner = number> extends ExtentList implements OwnedBatch<Owner> {
  readonly owners: (Owner | null)[] = [];

  /** These, as they are: nothing is joined. */
  static ofOwned<Owner>(extents: Iterable<OwnedExtent<Owner>>): OwnedList<Owner> {
    const list = new OwnedList<Owner>();
    for (const extent of extents) {
      list.push(extent);
      list.owners.push(extent.owner);
    }
    return list;
  }

  override *[Symbol.iterator](): Generator<OwnedExtent<Owner>, void, undefined> {
    yield* ownedExtents(this);
  }

  /** Adds what one layer says, which decides all that is not unallocated. */
  addAll({ length, starts, ends, kinds, hosts }: ExtentBatch, owner: Owner): void {
    for (let index = 0; index < length; index++) {
      const kind = kinds[index] as number;
      const decides = kind === KIND.unallocated ? null : owner;
      this.addOwned(
        decides,
        kind,
        starts[index] as number,
        ends[index] as number,
        hosts[index] as number,
      );
    }
  }

  /** As `add`, of one owner: what another one decides is never joined. */
  addOwned(owner: Owner | null, kind: number, start: number, end: number, host: number): void {
    const last = this.owners.length - 1;
    if (last >= 0 && this.owners[last] === owner && this.continues(last, kind, start, host)) {
      this.ends[last] = end;
      return;
    }
    this.append(kind, start, end, host);
    this.owners.push(owner);
  }
}

function* ownedExtents<Owner>(
  batch: OwnedBatch<Owner>,
): Generator<OwnedExtent<Owner>, void, undefined> {
  for (let index = 0; index < batch.length; index++)
    yield { ...extentAt(batch, index), owner: batch.owners[index] as Owner | null };
}
