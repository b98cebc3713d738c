import { type Image, ImageError } from '@downfold/image';
import type { Storage } from '@downfold/storage';
import { alignUp, byteLength, hostOffset, rangeBetween, SECTOR_BYTES } from '@downfold/units';
import { openImage } from './open.ts';
import type { LuksCreateOptions } from './options.ts';

/** Writes a new image onto empty storage; durable when it resolves. */
export async function createImage(file: Storage, options: LuksCreateOptions): Promise<Image> {
  const { encryption, backing, unwritten = 'zeros', signal } = options;
  signal?.throwIfAborted();
  if (backing != null)
    throw new ImageError(
      'IMAGE_UNSUPPORTED',
      `${file.label}: luks images do not have a backing file`,
      { image: file.label, feature: 'backing file' },
    );
  const { makeImageHeader } = await import('@downfold/luks');
  const { bytes } = await makeImageHeader(file.label, encryption);
  const virtualSize = alignUp(options.virtualSize, SECTOR_BYTES);
  await file.setLength(byteLength(bytes.length + virtualSize), options);
  await file.write(hostOffset(SECTOR_BYTES), bytes.subarray(SECTOR_BYTES), { what: 'key slots' });
  await file.flush('luks: key slots before the header');
  // a crash leaves a whole image, or what is none
  await file.write(hostOffset(0), bytes.subarray(0, SECTOR_BYTES), { what: 'header' });
  const image = await openImage(file, { mode: 'write', secret: encryption.secret, signal });
  if (unwritten === 'zeros')
    await image.data.writeZeroes(rangeBetween(hostOffset(0), virtualSize), options);
  await file.flush('luks: new image');
  return image;
}
