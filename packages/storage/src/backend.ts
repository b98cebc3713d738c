import type { ByteLength } from '@downfold/units';
import type { LockRequest } from './lock.ts';
import type { FileIdentity, Storage, StorageDriver } from './storage.ts';

/** `read`: nothing is ever written. `write`: reads and writes. */
export type OpenMode = 'read' | 'write';

/** Who may read a new file. */
export interface CreateFileOptions {
  /** Its owner only. */
  readonly secret: boolean;
  /**
   * As this file, which it is to replace: its owner, group and mode, where the backend has such; rejects, and creates nothing, when they cannot be had.
   * At no time may anybody read it who may not read that.
   */
  readonly like?: string;
}

/** What is known of a name without opening it for data. Links are followed. */
export interface FileFacts {
  readonly kind: 'file' | 'block-device' | 'directory' | 'other';
  readonly identity: FileIdentity;
  /** Bytes; 0 for what has no length. */
  readonly length: ByteLength;
  /** Bytes of host storage in use; equal to `length` where the backend cannot tell. */
  readonly allocated: ByteLength;
  /** Last modification, nanoseconds since 1970 as decimal text; a backend without a clock counts changes instead, or says `0`: not known. */
  readonly modified: string;
}

/** One name in a directory. */
export interface DirectoryEntry {
  readonly name: string;
  readonly kind: 'file' | 'directory' | 'link' | 'other';
}

/** A lock that is held until it is disposed of, or its process ends, however it ends. */
export interface StorageLock extends AsyncDisposable {
  /** The file that is locked, whatever has its name by now. */
  readonly identity: FileIdentity;
  /** The file system may be another machine's, and its locks may not be seen there, or may outlive a machine that died. */
  readonly remote: boolean;
  /**
   * Becomes another lock, without being let go in between; one call at a time. When it rejects with `STORAGE_LOCKED` it is what it was.
   * Of two that try at once both may fail.
   */
  change(request: LockRequest): Promise<void>;
}

/**
 * A place that holds named files, as implementers write it. Paths are absolute and use `/`, or are URLs.
 * A place whose files others make refuses to create, remove, rename and list with `STORAGE_UNSUPPORTED`.
 * Creations, renames and removals are durable only after `flushDirectory` of the directory they are in.
 * An open file stays the same file when its name moves or goes.
 */
export interface BackendDriver {
  readonly name: string;
  /** Never blocks on a FIFO: anything but a regular file or block device rejects with `STORAGE_NOT_REGULAR`. */
  open(path: string, mode: OpenMode): Promise<StorageDriver>;
  /** Creates an empty file; rejects with `STORAGE_EXISTS` when the name is taken. */
  create(path: string, options: CreateFileOptions): Promise<StorageDriver>;
  /** Rejects with `STORAGE_NOT_FOUND` when there is none. */
  remove(path: string): Promise<void>;
  /** Replaces `to` when it exists: at every moment, also after a crash, `to` names the old file or the new one. */
  rename(from: string, to: string): Promise<void>;
  /** Makes the names in a directory durable. `barrier` names the rule it serves. */
  flushDirectory(path: string, barrier: string): Promise<void>;
  facts(path: string): Promise<FileFacts>;
  /** In no particular order; `.` and `..` are left out. */
  list(directory: string): Promise<readonly DirectoryEntry[]>;
  /** The path with every link resolved. */
  realPath(path: string): Promise<string>;
  /**
   * Whether whole blocks that are copied from one file to the other will be shared between them, and not copied, as far as that can be told
   * without copying. Changes nothing.
   */
  sharesBlocks(from: string, to: string): Promise<boolean>;
  /**
   * Locks a file against other processes, and against other locks of this one: QEMU's locks, which a running QEMU sees and respects.
   * Of two that try at once both may fail, never both succeed. Files of this backend that are open already are not concerned.
   * Rejects with `STORAGE_LOCKED`, or with `STORAGE_UNSUPPORTED` where there are no locks.
   */
  lock(path: string, request: LockRequest): Promise<StorageLock>;
}

/** The caller's side of a backend: as `BackendDriver`, with files wrapped by `openStorage`. */
export interface StorageBackend extends Omit<BackendDriver, 'open' | 'create'> {
  open(path: string, mode: OpenMode): Promise<Storage>;
  create(path: string, options: CreateFileOptions): Promise<Storage>;
}
