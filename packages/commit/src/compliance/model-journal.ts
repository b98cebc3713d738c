import type { Cursor } from '../step.ts';

/** What the journal of the model holds, durably. Images by index. */
export interface ModelJournal {
  readonly cursor: Cursor | null;
  /** Images with a staging that a durable cursor knows of. */
  readonly stagings: readonly number[];
  /** Images that `invalidate` named. */
  readonly invalidated: readonly number[];
  /** Bytes copied up to the cursor. */
  readonly copied: number;
  /** The disk is base from here on. */
  readonly pivoted: boolean;
  /** No record: the client of the disk was told that its write is durable, and remembers. */
  readonly acknowledged: boolean;
}

/** That of a job that has not begun. */
export const UNBEGUN: ModelJournal = {
  cursor: null,
  stagings: [],
  invalidated: [],
  copied: 0,
  pivoted: false,
  acknowledged: false,
};

/** Whether the sources of a job are still needed: until a cursor says that all data is in place, or base is the disk. */
export function needsSources({ cursor, pivoted }: ModelJournal): boolean {
  return cursor?.['complete'] !== true && !pivoted;
}

const keys: WeakMap<ModelJournal, string> = new WeakMap();

/** Equal for journals from which a job goes on in the same way. */
export function journalKey(journal: ModelJournal): string {
  const known = keys.get(journal);
  if (known !== undefined) return known;
  const { cursor, stagings, invalidated, pivoted, acknowledged } = journal;
  const key = JSON.stringify([cursor, stagings, [...invalidated].sort(), pivoted, acknowledged]);
  keys.set(journal, key);
  return key;
}
