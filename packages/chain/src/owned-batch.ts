import { type Extent, type ExtentBatch, ExtentList, extentAt } from '@downfold/image';

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
    for (let index = 0; index < this.length; index++)
      yield { ...extentAt(this, index), owner: this.owners[index] as Owner | null };
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
