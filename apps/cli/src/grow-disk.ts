import type { Image } from '@downfold/image';
import { isQcow2, type Preallocation } from '@downfold/qcow2';
import { type ByteLength, SECTOR_BYTES } from '@downfold/units';
import { type Access, openBelow, shownBy } from './environment.ts';
import { UsageError } from './failure.ts';

/** @throws UsageError for what a disk with clusters cannot have */
export function assertWholeSectors(size: number): void {
  if (size % SECTOR_BYTES === 0) return;
  throw new UsageError(`The new size must be a multiple of ${SECTOR_BYTES}, and ${size} is not`);
}

/**
 * Makes the disk of an open image larger, durably. What the backing file shows past the old end must not come into view: it is made
 * zeros. `preallocation`: of what is added, in qcow2 images.
 */
export async function growDisk(
  image: Image,
  size: ByteLength,
  access: Access,
  preallocation: Preallocation = 'off',
): Promise<void> {
  await using below = await openBelow(image, access);
  const fill = shownBy(below);
  if (isQcow2(image)) await image.resize(size, { fill, preallocation });
  else await image.resize(size, { fill });
  await image.flush();
}
