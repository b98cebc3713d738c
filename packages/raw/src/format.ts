import {
  type CreateImageOptions,
  DEFAULT_IMAGE_LIMITS,
  FlatImage,
  type Image,
  ImageError,
  type ImageFormat,
} from '@downfold/image';
import type { Storage } from '@downfold/storage';
import { alignUp, guestOffset, hostOffset, rangeBetween, SECTOR_BYTES } from '@downfold/units';

const FIRST_BLOCK_BYTES = 4096;

/** Options of a new raw image. */
export interface RawCreateOptions extends CreateImageOptions {
  /** All of the disk has its place in the file before it is written: zeros are. Default: the file is a hole but for its first block. */
  readonly preallocated?: boolean;
}

/** Whether an image is a raw one. */
export function isRaw(image: Image): image is FlatImage {
  return image instanceof FlatImage && image.format === 'raw';
}

/** The raw format: the file is the disk. It recognises nothing: any bytes are a raw disk, so it must be named. */
export const raw: ImageFormat<RawCreateOptions> = {
  name: 'raw',
  abilities: new Set(['grow'] as const),
  recognises: () => false,
  open: async (storage, { mode, limits, signal }) => {
    signal?.throwIfAborted();
    const virtualSize = alignUp(await storage.length(), SECTOR_BYTES);
    const limit = limits?.virtualSize ?? DEFAULT_IMAGE_LIMITS.virtualSize;
    if (virtualSize > limit)
      throw new ImageError(
        'IMAGE_LIMIT',
        `${storage.label}: virtual size ${virtualSize} is above the limit of ${limit} bytes`,
        { image: storage.label, limit, found: virtualSize },
      );
    return rawImage(storage, virtualSize, mode === 'write' && storage.writable);
  },
  create: async (storage, options: RawCreateOptions) => {
    if (options.backing != null)
      throw new ImageError(
        'IMAGE_UNSUPPORTED',
        `${storage.label}: raw images do not have a backing file`,
        { image: storage.label, feature: 'backing file' },
      );
    const virtualSize = alignUp(options.virtualSize, SECTOR_BYTES);
    await storage.setLength(virtualSize, options);
    const image = rawImage(storage, virtualSize, true);
    // by a block that is there QEMU finds out what direct I/O has to be aligned to
    const first = virtualSize < FIRST_BLOCK_BYTES ? SECTOR_BYTES : FIRST_BLOCK_BYTES;
    if (virtualSize > 0) await storage.write(hostOffset(0), new Uint8Array(first), options);
    if (options.preallocated === true)
      await image.preallocate(rangeBetween(guestOffset(0), virtualSize), options);
    await storage.flush('raw: new image');
    return image;
  },
};

/** Guest offsets are host offsets. */
function rawImage(storage: Storage, virtualSize: number, writable: boolean): FlatImage {
  return new FlatImage({ format: 'raw', file: storage, data: storage, virtualSize, writable });
}
