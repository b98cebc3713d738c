/** Bytes of unchanged items kept in memory, at least two items. */
const CACHE_BYTES = 8 << 20;

/** A piece of metadata of one cluster, by its index. */
export interface Cached {
  readonly index: number;
  /** In memory it is not what a flush wrote last. */
  changed: boolean;
}

/**
 * L2 tables or refcount blocks in memory. What changed, or is just being written, stays: reading it from the file would bring
 * back old content. The rest goes when there is too much of it, least recently used first.
 */
export class MetadataCache<T extends Cached> {
  readonly #clean = new Map<number, T>();
  readonly #pinned = new Map<number, T>();
  /** Unchanged items that it keeps. */
  readonly most: number;
  #settled = 0;

  constructor(clusterSize: number) {
    this.most = Math.max(2, Math.floor(CACHE_BYTES / clusterSize));
  }

  /** How many items must stay in memory. */
  get pinned(): number {
    return this.#pinned.size;
  }

  /** The item when it is in memory; counts as a use. */
  get(index: number): T | undefined {
    const pinned = this.#pinned.get(index);
    if (pinned !== undefined) return pinned;
    const item = this.#clean.get(index);
    if (item !== undefined) {
      this.#clean.delete(index);
      this.#clean.set(index, item);
    }
    return item;
  }

  /** The item, from memory or from the file; null when `read` finds that there is none. */
  async load(index: number, read: () => Promise<T | null>): Promise<T | null> {
    for (;;) {
      const cached = this.get(index);
      if (cached !== undefined) return cached;
      const settled = this.#settled;
      const item = await read();
      // another caller may have loaded and changed it meanwhile, or even written it and dropped it again
      const raced = this.get(index);
      if (raced !== undefined) return raced;
      if (settled !== this.#settled) continue;
      if (item !== null) this.#put(item);
      return item;
    }
  }

  /** Notes that an item was changed, or takes in a new one. */
  touch(item: T): void {
    item.changed = true;
    if (this.#pinned.get(item.index) === item) return;
    this.#clean.delete(item.index);
    this.#pinned.set(item.index, item);
  }

  /** Everything that changed, by index; counts as unchanged from now on, but stays until `settle`. */
  seal(): readonly T[] {
    const changed = [...this.#pinned.values()].filter((item) => item.changed);
    for (const item of changed) item.changed = false;
    return changed.sort((a, b) => a.index - b.index);
  }

  /** What was sealed is in the file: items that have not changed again may go. */
  settle(): void {
    this.#settled++;
    for (const item of this.#pinned.values()) {
      if (item.changed) continue;
      this.#pinned.delete(item.index);
      this.#put(item);
    }
  }

  #put(item: T): void {
    this.#clean.set(item.index, item);
    for (const index of this.#clean.keys()) {
      if (this.#clean.size <= this.most) return;
      this.#clean.delete(index);
    }
  }
}
