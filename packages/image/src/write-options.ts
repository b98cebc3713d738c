import type { OperationOptions, Storage } from '@downfold/storage';
import type { ByteLength, GuestOffset, HostOffset } from '@downfold/units';

/**
 * Reads what lies below this image: fills `target` with the backing file's content at `offset`, zeros past
 * its end. Called for the parts of a cluster that a partial write does not cover, and never past the virtual size.
 */
export type CowSource = (offset: GuestOffset, target: Uint8Array) => Promise<void>;

/** Options of a write. */
export interface ImageWriteOptions extends OperationOptions {
  /** `null` says that nothing lies below (no backing file): the rest of a new cluster becomes zeros. */
  readonly fill: CowSource | null;
}

/** A piece of a copy into an image: `length` bytes at byte `from` of a file, written at guest byte `offset`. */
export interface ImageCopyPiece {
  readonly source: Storage;
  readonly from: HostOffset;
  readonly offset: GuestOffset;
  readonly length: ByteLength;
}
