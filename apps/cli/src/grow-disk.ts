import { viewOf } from '@downfold/chain';
import type { Image } from '@downfold/image';
import type { ByteLength } from '@downfold/units';
import { type Access, openBelow } from './environment.ts';

/**
 * Makes the disk of an open image larger, durably. What the backing file shows past the old end must not come into view: it is made
 * zeros.
 */
export async function growDisk(image: Image, size: ByteLength, access: Access): Promise<void> {
  await using below = await openBelow(image, access);
  const fill = below === null ? null : viewOf(below.layers, below.layers.length - 1);
  await image.resize(size, { fill });
  await image.flush();
}
