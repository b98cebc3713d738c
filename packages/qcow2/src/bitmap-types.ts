/** One persistent bitmap as the directory in the file has it. */
export interface StoredBitmap {
  readonly tableOffset: number;
  /** Entries of the bitmap table. */
  readonly tableSize: number;
  /** Byte of the entry's flags in the file. */
  readonly flagsAt: number;
  readonly flags: number;
  readonly name: string;
  /** Bytes of the disk that one bit stands for. */
  readonly granularity: number;
  /** What newer writers keep with it; stays as it is. */
  readonly extra: Uint8Array;
}

/** A persistent bitmap of an image that is open for writing. */
export interface LiveBitmap {
  readonly name: string;
  /** Bytes of the disk that one bit stands for. */
  readonly granularity: number;
  /** Records what is written. */
  enabled: boolean;
  /** Nobody knows what changed since it was saved: it can only be removed. */
  readonly consistent: boolean;
  /** Bits, which may reach past or not to the end of the disk; null: as they are in the file. */
  bits: Uint8Array | null;
  /** As the directory in the file has it; null: not there yet. */
  readonly stored: StoredBitmap | null;
}

/** The persistent bitmaps of an image that is open for writing. */
export interface BitmapSet {
  list: LiveBitmap[];
  /** Where the directory lies in the file; null: there is none. */
  directory: { readonly offset: number; readonly length: number } | null;
  /** Virtual size for which the bitmaps in the file were saved, bytes. */
  size: number;
  /** The file says that they are in use: what is written is recorded in memory, until they are saved (W9). */
  inUse: boolean;
  /** Names of those that do not record until the image is closed. */
  readonly paused: Set<string>;
  /** They are not to be saved any more. */
  abandoned: boolean;
}
