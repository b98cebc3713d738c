import { hashPage, PAGE_BYTES, type PageHash, placedHash } from './page-hash.ts';

/** The bytes of a page. Written in place only by the table that owns it; every other table copies it first. */
interface Page {
  readonly bytes: Uint8Array;
  readonly owner: PageTable;
  /** At its place; null: not known. */
  hash: PageHash | null;
}

/** With more pages of its own than this, a table that is copied makes them its base first: each copy would copy them again. */
const MOST_OWN_PAGES = 32;

/**
 * The pages of a file by index; absent ones are zeros. Copies share a base and so cost only the pages that changed since it was
 * made. A table that was copied is not written to any more.
 */
export class PageTable {
  /** Shared with copies, never changed. */
  #base: ReadonlyMap<number, Page> = new Map();
  /** What this table has in its place; null: zeros. */
  #own: Map<number, Page | null> = new Map();
  /** Sum of the hashes of all pages that are not in `unhashed`. */
  #sum: PageHash = [0, 0];
  #unhashed: Set<number> = new Set();

  /** An independent table with the same pages. */
  copy(): PageTable {
    if (this.#own.size > MOST_OWN_PAGES) {
      this.#base = new Map(this.#entries());
      this.#own = new Map();
    }
    const copy = new PageTable();
    copy.#base = this.#base;
    copy.#own = new Map(this.#own);
    copy.#sum = this.#sum;
    copy.#unhashed = new Set(this.#unhashed);
    return copy;
  }

  /** How many pages there are. */
  count(): number {
    return [...this.#entries()].length;
  }

  /** The first page from `index` on; null: there is none. */
  next(index: number): number | null {
    if (this.#page(index) !== undefined) return index;
    let least = Number.POSITIVE_INFINITY;
    for (const [at] of this.#entries()) if (at >= index && at < least) least = at;
    return Number.isFinite(least) ? least : null;
  }

  /** The bytes of a page, not to be written. */
  read(index: number): Uint8Array | undefined {
    return this.#page(index)?.bytes;
  }

  /** The bytes of a page, to be written at once; made when there are none. */
  write(index: number): Uint8Array {
    const page = this.#page(index);
    this.#forget(index, page);
    this.#unhashed.add(index);
    if (page?.owner === this) {
      page.hash = null;
      return page.bytes;
    }
    const bytes = page?.bytes.slice() ?? new Uint8Array(PAGE_BYTES);
    this.#own.set(index, { bytes, owner: this, hash: null });
    return bytes;
  }

  /** Takes the pages from `first` up to, but not including, `end` away. */
  drop(first: number, end: number): void {
    if (end - first < this.#base.size + this.#own.size)
      for (let index = first; index < end; index++) this.#dropOne(index);
    else
      for (const [index] of [...this.#entries()])
        if (index >= first && index < end) this.#dropOne(index);
  }

  /** The sum of the hashes of all pages at their places: equal for equal pages, and pages of zeros count as absent. */
  hash(): PageHash {
    let [high, low] = this.#sum;
    for (const index of this.#unhashed) {
      const page = this.#page(index) as Page;
      page.hash ??= placedHash(hashPage(page.bytes), index);
      high = (high + page.hash[0]) >>> 0;
      low = (low + page.hash[1]) >>> 0;
    }
    this.#unhashed.clear();
    this.#sum = [high, low];
    return this.#sum;
  }

  #page(index: number): Page | undefined {
    const own = this.#own.get(index);
    return own === undefined ? this.#base.get(index) : (own ?? undefined);
  }

  *#entries(): Generator<[number, Page], void, undefined> {
    for (const [index, page] of this.#base) if (!this.#own.has(index)) yield [index, page];
    for (const [index, page] of this.#own) if (page !== null) yield [index, page];
  }

  #dropOne(index: number): void {
    const page = this.#page(index);
    if (page === undefined) return;
    this.#forget(index, page);
    if (this.#base.has(index)) this.#own.set(index, null);
    else this.#own.delete(index);
  }

  /** Takes a page out of the sum: it is about to change. */
  #forget(index: number, page: Page | undefined): void {
    if (this.#unhashed.delete(index) || page === undefined || page.hash === null) return;
    this.#sum = [(this.#sum[0] - page.hash[0]) >>> 0, (this.#sum[1] - page.hash[1]) >>> 0];
  }
}
