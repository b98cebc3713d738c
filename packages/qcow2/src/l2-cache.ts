/** Bytes of clean L2 tables kept in memory, at least two tables; dirty ones stay until they are flushed. */
const CACHE_BYTES = 8 << 20;

/** One L2 table in memory. */
export interface L2Table {
  readonly l1Index: number;
  /** Byte of the table in the file. */
  readonly offset: number;
  /** Two words an entry, four when extended. */
  readonly words: Uint32Array;
  /** Not referenced by the L1 table in the file yet: may be written at any time. */
  fresh: boolean;
  /** Words changed since the last flush: [from, to); empty when from >= to. */
  dirtyFrom: number;
  dirtyTo: number;
}

/** L2 tables by L1 index, least recently used first. */
export class L2Cache {
  readonly #tables = new Map<number, L2Table>();
  readonly #most: number;

  constructor(clusterSize: number) {
    this.#most = Math.max(2, Math.floor(CACHE_BYTES / clusterSize));
  }

  /** The table when it is in memory; counts as a use. */
  get(l1Index: number): L2Table | undefined {
    const table = this.#tables.get(l1Index);
    if (table !== undefined) {
      this.#tables.delete(l1Index);
      this.#tables.set(l1Index, table);
    }
    return table;
  }

  /** Takes a table in, replacing one of the same index, and drops the clean ones used longest ago. */
  put(table: L2Table): void {
    this.#tables.delete(table.l1Index);
    this.#tables.set(table.l1Index, table);
    let over = this.#tables.size - this.#most;
    for (const [index, old] of this.#tables) {
      if (over <= 0) break;
      if (old.fresh || old.dirtyFrom < old.dirtyTo || old === table) continue;
      this.#tables.delete(index);
      over--;
    }
  }

  /** How many tables have changes that are not in the file. */
  dirtyCount(): number {
    let count = 0;
    for (const table of this.#tables.values())
      if (table.fresh || table.dirtyFrom < table.dirtyTo) count++;
    return count;
  }

  /** All tables with changes that are not in the file, in order of L1 index. */
  dirty(): L2Table[] {
    return [...this.#tables.values()]
      .filter((table) => table.fresh || table.dirtyFrom < table.dirtyTo)
      .sort((a, b) => a.l1Index - b.l1Index);
  }
}

/** Marks words [from, to) of a table as changed. */
export function markDirty(table: L2Table, from: number, to: number): void {
  table.dirtyFrom = Math.min(table.dirtyFrom, from);
  table.dirtyTo = Math.max(table.dirtyTo, to);
}

/** A table as it is in the file: nothing changed. */
export function cleanTable(l1Index: number, offset: number, words: Uint32Array): L2Table {
  return { l1Index, offset, words, fresh: false, dirtyFrom: words.length, dirtyTo: 0 };
}
