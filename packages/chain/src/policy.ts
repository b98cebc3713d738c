import type { ImageFormat, ImageLimits, ImageSecret } from '@downfold/image';
import type { LockRequest, StorageBackend } from '@downfold/storage';

/**
 * What a resolver may open. The default denies: only `roots`, only regular files and block devices, no probing,
 * no protocol names.
 */
export interface ChainPolicy {
  /**
   * Directories (absolute) that backing files may lie in, directly or deeper, after all links are resolved; and URLs that the user named: an image
   * may name such a one, letter for letter as its backend spells it, and no other. Null: the directory of the image the user named.
   */
  readonly roots: readonly string[] | null;
  /** Most layers of a chain. Default 64, at most 1,024. */
  readonly depth: number;
  /** Opens images that are marked invalid or superseded. Default false. */
  readonly allowMarked: boolean;
  /**
   * Opens the external data files that images name, where backing files may lie. Default false: a name in an image that a guest or a
   * customer could write would read, and change, a file of the host. `unread`: an image that names one is opened without it: it can be
   * described, and its data cannot be read.
   */
  readonly allowDataFile: boolean | 'unread';
  /**
   * How images are locked against other processes while they are read or written.
   * - `local`, the default: always; on a file system that may be another machine's, where locks may exclude nobody, it is refused.
   * - `everywhere`: there too.
   * - `none`: not at all. Whoever asks for it knows that nobody else uses the images.
   */
  readonly locks: 'local' | 'everywhere' | 'none';
  readonly limits: Partial<ImageLimits>;
  /**
   * The secret of the image at a path (links resolved), where it is encrypted; null: none is known. The same one for the same image: it remembers the
   * key that it found. Default: none is known of any.
   */
  readonly secretOf: (path: string) => ImageSecret | null;
  /** Opens encrypted images without their secret: for whoever looks at metadata alone. Default false. */
  readonly allowLocked: boolean;
}

/** The safe default (design section 7). */
export const defaultPolicy: ChainPolicy = {
  roots: null,
  depth: 64,
  allowMarked: false,
  allowDataFile: false,
  locks: 'local',
  limits: {},
  secretOf: () => null,
  allowLocked: false,
};

/** The formats a caller passes in; there is no registry. */
export type Formats = readonly ImageFormat[];

/** Locks of external data files that several openings of an image share. */
export interface SharedLocks {
  /** Locks the data file at `path` for the image at `image` until it is disposed of. */
  hold(
    path: string,
    image: string,
    request: LockRequest,
    environment: Pick<ChainEnvironment, 'backend' | 'policy'>,
  ): Promise<AsyncDisposable>;
}

/** What opening images needs; passed in by whoever assembles. */
export interface ChainEnvironment {
  readonly backend: StorageBackend;
  readonly formats: Formats;
  readonly policy: ChainPolicy;
  readonly signal?: AbortSignal | undefined;
  /** Shared by all that this process opens; absent: every opening locks an image's external data file by itself, and a second one may be refused. */
  readonly dataFileLocks?: SharedLocks | undefined;
}
