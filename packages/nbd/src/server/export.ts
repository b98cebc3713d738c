import type { DirectReads } from '@downfold/units';
import type { BlockSize, StatusExtent } from '../protocol.ts';

/** What an export can do beyond what every export must. What is `false` is not offered, and never called. */
export interface ExportSupport {
  /** `trim` gives space back. */
  readonly trim: boolean;
  /** `writeZeroes` can tell at once that it is not faster than a write (`fast`). */
  readonly fastZero: boolean;
  /** `cache` does something. */
  readonly cache: boolean;
  /** A flush, or a write with `fua`, over one connection covers what was answered over any other. */
  readonly multiConn: boolean;
}

/** A run of zeros in what was read. */
export interface Hole {
  /** Bytes from the start of the export. */
  readonly offset: number;
  /** Bytes, above 0. */
  readonly length: number;
}

/** What calls get whose length is no measure of what they take: a client may ask for all of a disk, and hang up. */
export interface CallOptions {
  /** Aborted when nobody wants what was asked for any more: the call shall reject soon, with as much done as there is then. */
  readonly signal: AbortSignal;
}

/** How a change is to be done. */
export interface ChangeOptions {
  /** Resolve only once this change is on stable storage. */
  readonly fua: boolean;
}

/** How zeros are to be written. */
export interface ZeroOptions extends ChangeOptions, CallOptions {
  /** Space may be given back. When `false` it stays, or becomes, reserved. */
  readonly mayTrim: boolean;
  /** Reject with `ENOTSUP`, and change nothing, when it takes as long as a write would. */
  readonly fast: boolean;
}

/**
 * What a server serves: the bytes of a disk. The server has checked ranges, alignment and rights before it calls; offsets and
 * lengths are whole numbers, in bytes, inside of `size`, lengths above 0.
 *
 * Calls overlap in time, and in range when a client, or several, ask for that: who needs an order makes it. Every failure
 * rejects; `errnoError` chooses what the client is told, other errors are `EIO`, `ENOSPC` or `EPERM` by their code.
 */
export interface Export {
  /** Bytes, up to 2^53-1. Does not change while the export is served. */
  readonly size: number;
  readonly readOnly: boolean;
  /** For people; empty for none. */
  readonly description: string;
  readonly blockSize: BlockSize;
  readonly supports: ExportSupport;
  /** Metadata contexts that `blockStatus` knows, such as `base:allocation`. */
  readonly contexts: readonly string[];
  /** Null: all reads are calls of `read`. */
  readonly direct: DirectReads | null;
  /**
   * Fills all of `target`, but for the runs of zeros that it resolves with: ordered, apart, inside of the range; `[]` when
   * there are none. A read that comes short rejects.
   */
  read(offset: number, target: Uint8Array): Promise<readonly Hole[]>;
  /** Writes all of `source`, which is the export's to keep. */
  write(offset: number, source: Uint8Array, options: ChangeOptions): Promise<void>;
  writeZeroes(offset: number, length: number, options: ZeroOptions): Promise<void>;
  /** The contents of the range are of no more use. They may be anything afterwards. */
  trim(offset: number, length: number, options: ChangeOptions & CallOptions): Promise<void>;
  /** Everything that was answered before the call is on stable storage when this resolves. */
  flush(): Promise<void>;
  /** The range will be read soon. */
  cache(offset: number, length: number, options: CallOptions): Promise<void>;
  /**
   * Statuses of consecutive runs from `offset`: at least one, at most `limit`. It may stop before the range ends; the last
   * run may go on beyond it.
   */
  blockStatus(
    context: string,
    offset: number,
    length: number,
    limit: number,
    options: CallOptions,
  ): Promise<readonly StatusExtent[]>;
}
