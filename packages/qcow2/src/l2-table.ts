/** One L2 table in memory. */
export interface L2Table {
  /** Of the L1 entry that refers to it. */
  readonly index: number;
  /** Byte of the table in the file. */
  readonly offset: number;
  /** Two words an entry, four when extended. */
  readonly words: Uint32Array;
  /** Of a table in a staging: the words of the image's own table, from which it has entries (stage-entries.ts). */
  lower: Uint32Array | null;
  changed: boolean;
  /** Not referenced by the L1 table in the file yet: may be written at any time. */
  fresh: boolean;
  /** Words changed since the last flush: [from, to); empty when from >= to. */
  dirtyFrom: number;
  dirtyTo: number;
}

/** A table as it is in the file: nothing changed. */
export function cleanTable(
  index: number,
  offset: number,
  words: Uint32Array,
  lower: Uint32Array | null = null,
): L2Table {
  return {
    index,
    offset,
    words,
    lower,
    changed: false,
    fresh: false,
    dirtyFrom: words.length,
    dirtyTo: 0,
  };
}
