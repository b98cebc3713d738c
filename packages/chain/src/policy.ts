import type { ImageFormat, ImageLimits } from '@downfold/image';

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
   * customer could write would read, and change, a file of the host.
   */
  readonly allowDataFile: boolean;
  /**
   * How images are locked against other processes while they are read or written.
   * - `local`, the default: always; on a file system that may be another machine's, where locks may exclude nobody, it is refused.
   * - `everywhere`: there too.
   * - `none`: not at all. Whoever asks for it knows that nobody else uses the images.
   */
  readonly locks: 'local' | 'everywhere' | 'none';
  readonly limits: Partial<ImageLimits>;
}

/** The safe default (design section 7). */
export const defaultPolicy: ChainPolicy = {
  roots: null,
  depth: 64,
  allowMarked: false,
  allowDataFile: false,
  locks: 'local',
  limits: {},
};

/** The formats a caller passes in; there is no registry. */
export type Formats = readonly ImageFormat[];
