import {
  type CreateImageOptions,
  DEFAULT_IMAGE_LIMITS,
  ImageError,
  type ImageFormat,
} from '@downfold/image';
import { alignUp } from '@downfold/units';
import { RawImage, SECTOR_BYTES } from './raw-image.ts';

/** The raw format: the file is the disk. It recognises nothing: any bytes are a raw disk, so it must be named. */
export const raw: ImageFormat = {
  name: 'raw',
  abilities: new Set(),
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
    return new RawImage(storage, { virtualSize, writable: mode === 'write' && storage.writable });
  },
  create: async (storage, options: CreateImageOptions) => {
    if (options.backing != null)
      throw new ImageError(
        'IMAGE_UNSUPPORTED',
        `${storage.label}: raw images do not have a backing file`,
        { image: storage.label, feature: 'backing file' },
      );
    const virtualSize = alignUp(options.virtualSize, SECTOR_BYTES);
    await storage.setLength(virtualSize, options);
    await storage.flush('raw: new image');
    return new RawImage(storage, { virtualSize, writable: true });
  },
};
