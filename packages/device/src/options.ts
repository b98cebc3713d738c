import type { ChainLayer, ImageLocks } from '@downfold/chain';
import type { Image } from '@downfold/image';
import type { OperationOptions } from '@downfold/storage';

/** Locks on layers, by path. */
export type LayerLocks = Pick<ImageLocks, 'change' | 'release'>;

/** How a disk is made. */
export interface DeviceOptions {
  /** Open layers, bottom first; the last one is the active layer. They stay the caller's: the disk never closes them unasked. */
  readonly layers: readonly ChainLayer[];
  /** The locks on the layers, which stay the caller's too; for jobs. Default: there are none. */
  readonly locks?: LayerLocks;
  /** Refuses changes. Default: when the active layer is open for reading only. */
  readonly readOnly?: boolean;
  /** Milliseconds, for reports on drained sections. Default `performance.now`. */
  readonly now?: () => number;
  /**
   * Whether an image makes zeros without writing them. Default: it has units of allocation, and does not say `zeroesAsData`.
   * Where it cannot, `fast` zeros are refused and discards do nothing.
   */
  readonly zeroesByMetadata?: (image: Image) => boolean;
}

/** Options of a change. */
export interface ChangeOptions extends OperationOptions {
  /** Durable when it resolves (forced unit access): the change, and what the active layer needs to find it. Default false. */
  readonly fua?: boolean;
}

/** Options of `Device.writeZeroes`. */
export interface ZeroOptions extends ChangeOptions {
  /** Space may be given back; false: the range must not run out of space later, so zeros are written as data. Default true. */
  readonly mayUnmap?: boolean;
  /** Rather refuse with `DEVICE_UNSUPPORTED`, before anything changed, than be as slow as a write. Default false. */
  readonly fast?: boolean;
}

/** Options of `Device.blockStatus`. */
export interface StatusOptions extends OperationOptions {
  /** Statuses at most. Default: no limit. */
  readonly limit?: number;
}

/** Options of `DrainedSection.replace`. */
export interface ReplaceOptions {
  /** Closes the images that left. Default false: they are the caller's. */
  readonly close?: boolean;
  /** A disk that refused changes takes them from now on: its active layer must be open for writing. Default false. */
  readonly takesChanges?: boolean;
}
