import type { CreateImageOptions } from '@downfold/image';
import type { ImageEncryption } from '@downfold/luks';

/** Options of a new LUKS image. */
export interface LuksCreateOptions extends CreateImageOptions {
  readonly encryption: ImageEncryption;
  /**
   * What of the disk nobody wrote: `zeros`, which takes as long as writing all of it, or `noise`, as QEMU leaves it. Default zeros: what a format's new
   * image shows.
   */
  readonly unwritten?: 'zeros' | 'noise';
}
