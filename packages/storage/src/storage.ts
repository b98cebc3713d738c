import type { ByteLength, HostOffset, HostRange } from '@downfold/units';

/** What a backend can do. What is `false` rejects with `STORAGE_UNSUPPORTED`; it never pretends. */
export interface StorageSupport {
  /** `discard` gives host space back (punches a hole). */
  readonly discard: boolean;
  /** `setLength` can change the length (a block device cannot). */
  readonly resize: boolean;
}

/** Who a file is, whatever it is called: equal exactly for the same file through any name or link. */
export interface FileIdentity {
  /** Device number, as decimal text (64 bits do not fit a number). */
  readonly device: string;
  /** Inode number, as decimal text. */
  readonly inode: string;
}

/** What a file has at some byte and behind it. */
export interface FileRun {
  /** Nothing is stored: it reads as zeros and takes no space. Else there may be bytes. */
  readonly hole: boolean;
  /** The byte behind the run; what follows may be of the same kind. */
  readonly end: HostOffset;
}

/** What an operation carries besides its bytes. */
export interface OperationOptions {
  /** Rejects with the signal's reason before the next system call; a write under way is finished first. */
  readonly signal?: AbortSignal | undefined;
}

/** What a write says about itself. */
export interface WriteOptions extends OperationOptions {
  /**
   * What the bytes are, in the format's words (`data`, `l2`, `refcount-block`, `header`, ...). Has no
   * effect on the write: traces, fault rules and crash reports name operations by it.
   */
  readonly what?: string;
}

/** A piece of a copy: `length` bytes at byte `from` of `source` go to byte `to`. */
export interface CopyPiece<Source = Storage> {
  readonly source: Source;
  readonly from: HostOffset;
  readonly to: HostOffset;
  readonly length: ByteLength;
}

/**
 * The implementer's side of a file: strict and small. The wrapper (`openStorage`) has checked ranges,
 * state and signals before it calls. A driver may be called again before an earlier call has settled;
 * overlapping ranges are then the caller's fault.
 * All members are required, so that a decorator stops compiling when an operation is added.
 */
export interface StorageDriver extends AsyncDisposable {
  /** How errors name the file; for people. */
  readonly label: string;
  readonly writable: boolean;
  readonly supports: StorageSupport;
  readonly identity: FileIdentity;
  /**
   * Of the open file, for who reads it by other calls than these: valid until it is closed, and what is read by it is what `read` gives.
   * Null: there is none, or its bytes are not the file's as they are.
   */
  readonly descriptor: number | null;
  length(): Promise<ByteLength>;
  /** Reads until `target` is full or the file ends; resolves with the bytes read. */
  read(offset: HostOffset, target: Uint8Array): Promise<number>;
  /** These bytes will be read soon, by a read or a copy: a hint. Absent: it makes no difference. */
  willRead?(offset: HostOffset, length: number): void;
  /**
   * The run that byte `offset` is in, from there on. Past the end of the file is a hole, up to the largest offset there is. What was written before the
   * call is in no hole, durable or not. A backend that does not know of holes says `bytesTo` of its length.
   */
  runAt(offset: HostOffset): Promise<FileRun>;
  /**
   * Writes all of `source` (loops on short counts). A write past the end grows the file; where the length is fixed it rejects with
   * `STORAGE_NO_SPACE`, and nothing is written.
   */
  write(offset: HostOffset, source: Uint8Array, what: string): Promise<void>;
  /** Makes the range read as zeros, growing the file when it ends inside, as a write does; holes where that is cheap. */
  writeZeroes(range: HostRange, what: string): Promise<void>;
  /**
   * Copies inside the backend when the source is of the same kind, and resolves with the bytes copied, counted from the start
   * of the first piece: fewer than all when it stopped early, 0 when it cannot do it for the first piece (the wrapper then goes
   * on through a buffer with what is of the same source). Never fewer because of an error: errors reject. Past the end of a source are zeros, as
   * in a read. No piece is empty, and none overlaps what another one reads or writes. Blocks that files share count as a copy.
   */
  copyFrom(pieces: readonly CopyPiece<StorageDriver>[], what: string): Promise<number>;
  /** Gives host space back; the range reads as zeros afterwards. Never grows the file. */
  discard(range: HostRange): Promise<void>;
  setLength(length: ByteLength): Promise<void>;
  /** Everything written before the call is on stable storage when this resolves. `barrier` names the rule it serves. */
  flush(barrier: string): Promise<void>;
}

/**
 * The caller's side of an open file: any offset, checked, cancellable, loud.
 * Ownership: who opened it closes it (`await using`). Closing does not flush; it waits for the calls under way and
 * refuses later ones with `STORAGE_CLOSED`.
 */
export interface Storage extends AsyncDisposable {
  readonly label: string;
  readonly writable: boolean;
  readonly supports: StorageSupport;
  readonly identity: FileIdentity;
  /** As the driver's. */
  readonly descriptor: number | null;
  /** Bytes in the file now. */
  length(): Promise<ByteLength>;
  /** Fills `target` completely; bytes past the end of the file read as zero. */
  read(offset: HostOffset, target: Uint8Array, options?: OperationOptions): Promise<void>;
  /** As the driver's. */
  willRead?(offset: HostOffset, length: number): void;
  /**
   * What the file has from byte `offset` on, without reading it. A hole is as true as a read that starts now: what is written later may fill it.
   * Files that do not know their holes have none.
   */
  runAt(offset: HostOffset, options?: OperationOptions): Promise<FileRun>;
  /** Not durable until a later `flush` resolves. Overlapping writes in flight land in undefined order. */
  write(offset: HostOffset, source: Uint8Array, options?: WriteOptions): Promise<void>;
  /** The range reads as zeros afterwards; past the end it grows the file, as a write does. */
  writeZeroes(range: HostRange, options?: WriteOptions): Promise<void>;
  /**
   * Copies from other files, or other places of this one, without the bytes passing through the caller. Past the end of a
   * source are zeros. Not durable until `flush`. When it rejects, some of the bytes may have been copied. Many pieces in one
   * call cost less than a call each; in what order they are copied is undefined, and overlaps between them are the caller's fault.
   * @throws StorageError `STORAGE_RANGE` when both ranges of a piece are of the same file and overlap
   */
  copyFrom(pieces: readonly CopyPiece[], options?: WriteOptions): Promise<void>;
  /** Gives host space back; the range reads as zeros and the length stays. Rejects with `STORAGE_UNSUPPORTED` unless `supports.discard`. */
  discard(range: HostRange, options?: OperationOptions): Promise<void>;
  /** Rejects with `STORAGE_UNSUPPORTED` unless `supports.resize`. New bytes read as zeros. */
  setLength(length: ByteLength, options?: OperationOptions): Promise<void>;
  /**
   * Barrier: every write that resolved before the call is on stable storage when this resolves.
   * Once it rejects, every flush under way and every later write and flush rejects with `STORAGE_FLUSH_FAILED`.
   * Rejects with `STORAGE_READ_ONLY` when opened for reading.
   * @param barrier the ordering rule it serves, e.g. `W1 refcounts before L2`; crash tests switch barriers off by it.
   */
  flush(barrier: string): Promise<void>;
}
