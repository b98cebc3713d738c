import { existsSync, watch } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { basename, dirname } from 'node:path';
import { type JournalRecord, parseJournal } from '@downfold/commit';

/** The records of a journal; none when there is no such file, or a crash left it before its first record: nothing has happened then. */
export async function recordsIn(path: string): Promise<readonly JournalRecord[]> {
  if (!existsSync(path)) return [];
  return parseJournal(path, await readFile(path)).records;
}

/** When a journal came and went, by `performance.now()`; null: not yet. */
export interface WatchedJournal extends Disposable {
  readonly appeared: number | null;
  readonly gone: number | null;
}

/** Watches for a journal, which must not be there yet. `onAppear` is called once. */
export function watchJournal(path: string, onAppear?: () => void): WatchedJournal {
  let [appeared, gone]: [number | null, number | null] = [null, null];
  const name = basename(path);
  const watcher = watch(dirname(path), (_, changed) => {
    if (changed !== name) return;
    // the first that is heard of it is that it came, though on a busy machine it may be gone when that is heard
    if (appeared === null) onAppear?.();
    appeared ??= performance.now();
    if (!existsSync(path)) gone ??= performance.now();
  });
  return {
    get appeared() {
      return appeared;
    },
    get gone() {
      return gone;
    },
    [Symbol.dispose]: () => watcher.close(),
  };
}
