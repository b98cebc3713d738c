import type { OperationOptions } from '@downfold/storage';
import type { ByteLength, GuestOffset, GuestRange } from '@downfold/units';
import type { CowSource, ImageCopyPiece, ImageWriteOptions } from './write-options.ts';

/**
 * Where a staging lies in its file, so that another process can go on with it: plain JSON, meaningful to the format alone,
 * constant from `stage` on. Worth writing down once a `Staging.flush` resolved.
 */
export type StagingToken = Readonly<Record<string, number>>;

/** Options of `Image.stage`. */
export interface StageOptions extends OperationOptions {
  /** Virtual size from the publish on, in bytes; not below the present one. The new area reads as zeros. */
  readonly virtualSize: ByteLength;
  /** The staging of an earlier process to go on with; null: a new one that shows what the image shows. */
  readonly from: StagingToken | null;
  /** What lies below the image, or null: a larger disk must not let it show in the new area. */
  readonly fill: CowSource | null;
  /** What `publish` will be asked to keep: a new staging is refused, and the image as it was, when it could not be. */
  readonly keepUndo?: Undo | null;
}

/** An internal snapshot of what an image showed before a publish. */
export interface Undo {
  readonly name: string;
  readonly date: string;
}

/** Options of `Staging.publish`. */
export interface PublishOptions {
  /** Keeps what the image showed before as an internal snapshot; null: gives its space back. */
  readonly keepUndo: Undo | null;
}

/**
 * A second mapping of an image, written aside: nobody sees it until `publish` makes it the image's, by one atomic write of a sector.
 * Until then the image, read through its header, shows what it showed when the staging began; a crash leaves
 * clusters that are counted and not referenced, which `Image.reclaimLeaks` gives back (or keeps, for a token).
 * While there is a staging the image's own writing members reject.
 */
export interface Staging {
  readonly token: StagingToken;
  /** The mapping is the image's already: an earlier process published it. */
  readonly published: boolean;
  /** Reads what the staging shows; `below` as in `Image.read`. */
  read(offset: GuestOffset, target: Uint8Array, below: CowSource | null): Promise<void>;
  /** As `Image.write`, aside. */
  write(offset: GuestOffset, source: Uint8Array, options: ImageWriteOptions): Promise<void>;
  /** As `Image.copyFrom`, aside. */
  copyFrom(pieces: readonly ImageCopyPiece[], options: ImageWriteOptions): Promise<void>;
  /** As `Image.writeZeroes`, aside. */
  writeZeroes(range: GuestRange, options: ImageWriteOptions): Promise<void>;
  /** Everything staged before the call is durable when it resolves, reachable from the token. */
  flush(): Promise<void>;
  /** Flushes, then switches atomically and durably, then gives back what only the old mapping held. Ends the staging. */
  publish(options: PublishOptions): Promise<void>;
  /** Gives back everything taken; durable when it resolves. Ends the staging. */
  discard(): Promise<void>;
}
