import { existsSync, watch } from 'node:fs';
import { basename, dirname } from 'node:path';

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
    if (existsSync(path)) {
      if (appeared === null) onAppear?.();
      appeared ??= performance.now();
    } else if (appeared !== null) gone ??= performance.now();
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
