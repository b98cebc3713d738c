import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** A directory that is removed when it goes out of scope (`await using`), unless `keep()` was called. */
export interface Scratch extends AsyncDisposable {
  readonly path: string;
  /** Leaves the directory behind, for a look at a failure. */
  keep(): void;
}

/** Makes a scratch directory under `TMPDIR`. */
export async function scratch(name: string): Promise<Scratch> {
  const path = await mkdtemp(join(tmpdir(), `downfold-${name}-`));
  let kept = false;
  return {
    path,
    keep: () => {
      kept = true;
    },
    [Symbol.asyncDispose]: async () => {
      if (!kept) await rm(path, { recursive: true, force: true });
    },
  };
}
