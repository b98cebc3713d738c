/** What happens on a disk, in one order over all files. */
export interface DiskObserver {
  /** Called after a change of a file's bytes. */
  changed(change: FileChange): void;
  /** Called when a flush is called; the function it returns, when the flush is over. */
  flushing(inode: number, barrier: string): () => void;
  /** Called after a change of names. */
  renamed(change: NameChange): void;
  /** As `flushing`, of a directory. */
  flushingDirectory(path: string, barrier: string): () => void;
}

/** A change of a file's bytes. `bytes` belong to the observer. */
export type FileChange = { readonly inode: number; readonly what: string } & (
  | { readonly do: 'write'; readonly offset: number; readonly bytes: Uint8Array }
  | { readonly do: 'zero' | 'discard'; readonly offset: number; readonly length: number }
  | { readonly do: 'length'; readonly length: number }
);

/**
 * A change of names: `path` is the name that the file `inode` gets or, by `remove`, loses. A rename is one change: it takes `from`
 * away and replaces what `path` named.
 */
export type NameChange = { readonly path: string; readonly inode: number } & (
  | { readonly do: 'create' | 'remove' }
  | { readonly do: 'rename'; readonly from: string }
);

/** A change of bytes or of names. */
export type Change =
  | ({ readonly kind: 'file' } & FileChange)
  | ({ readonly kind: 'name' } & NameChange);
