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
}

/** That of a job that has not begun. */
export const UNBEGUN: ModelJournal = {
  cursor: null,
  stagings: [],
  invalidated: [],
  copied: 0,
};

/** Whether the sources of a job are still needed: until a cursor says that all data is in place. */
export function needsSources({ cursor }: ModelJournal): boolean {
  return cursor?.['complete'] !== true;
}

/** Equal for journals from which a job goes on in the same way. */
export function journalKey({ cursor, stagings, invalidated }: ModelJournal): string {
  return JSON.stringify([cursor, stagings, [...invalidated].sort()]);
}
