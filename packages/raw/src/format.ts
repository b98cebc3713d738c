import { type CreateImageOptions, ImageError, type ImageFormat } from '@downfold/image';
import { alignUp } from '@downfold/units';
import { RawImage } from './raw-image.ts';

/** A raw file that ends inside a sector reads as if zeros completed it: QEMU counts sectors, rounded up. */
const SECTOR_BYTES = 512;

/** The raw format: the file is the disk. It recognises nothing: any bytes are a raw disk, so it must be named. */
export const raw: ImageFormat = {
  name: 'raw',
  abilities: new Set(),
  recognises: () => false,
  open: async (storage) => new RawImage(storage, alignUp(await storage.length(), SECTOR_BYTES)),
  create: async (storage, options: CreateImageOptions) => {
    if (options.backing != null)
      throw new ImageError(
        'IMAGE_UNSUPPORTED',
        `${storage.label}: raw images do not have a backing file`,
        { image: storage.label, feature: 'backing file' },
      );
    await storage.setLength(options.virtualSize, options);
    await storage.flush('raw: new image');
    return new RawImage(storage, options.virtualSize);
  },
};
