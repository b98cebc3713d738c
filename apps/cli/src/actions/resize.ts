import { FlatImage, type Image } from '@downfold/image';
import { isQcow2, type Preallocation } from '@downfold/qcow2';
import { isRaw } from '@downfold/raw';
import { type ByteLength, byteLength, guestOffset, rangeBetween } from '@downfold/units';
import { type Access, openForWriting } from '../environment.ts';
import { UsageError } from '../failure.ts';
import { assertWholeSectors, growDisk } from '../grow-disk.ts';
import { parseBytes } from '../output/bytes.ts';
import { printResult } from '../output/print.ts';

/** Options of `resize`. */
export interface ResizeOptions extends Access {
  readonly format: string;
  readonly output: string;
  readonly shrink?: boolean;
  readonly preallocation: Preallocation;
  readonly quiet?: boolean;
}

/** `downfold resize`: the disk of FILE gets another size; `+` and `-` change the present one. */
export async function resize(file: string, size: string, options: ResizeOptions): Promise<number> {
  await using opened = await openForWriting(file, options.format, options);
  const { image } = opened;
  const before = image.geometry.virtualSize;
  const wanted = sizeFrom(size, before);
  if (!(image instanceof FlatImage)) assertWholeSectors(wanted);
  if (options.preallocation !== 'off' && wanted < before)
    throw new UsageError('Preallocation can only be used for growing images');
  if (options.preallocation === 'metadata' && !isQcow2(image))
    throw new UsageError(`Unsupported preallocation mode: metadata, of a ${image.format} image`);
  if (wanted < before && options.shrink !== true)
    throw new UsageError(
      `Use the --shrink option to perform a shrink operation: all data past ${wanted} bytes would be lost`,
    );
  const after = await (wanted < before ? shrink(image, wanted) : grow(image, wanted, options));
  const told = { filename: file, 'virtual-size': after, before };
  printResult(options, told, () => 'Image resized.');
  return 0;
}

/** Bytes of `10G`, or of `+10G` and `-10G` beside what there are. */
function sizeFrom(text: string, before: number): ByteLength {
  const [, sign, amount = ''] = /^([+-]?)(.*)$/.exec(text) ?? [];
  const bytes = parseBytes(amount, 'image size');
  const wanted = sign === '' ? bytes : before + (sign === '+' ? bytes : -bytes);
  if (wanted <= 0)
    throw new UsageError(`New image size must be positive: '${text}' of ${before} bytes`);
  return byteLength(wanted);
}

/** Resolves with the size of the disk then. */
async function grow(image: Image, size: ByteLength, options: ResizeOptions): Promise<number> {
  const before = image.geometry.virtualSize;
  if (!(image instanceof FlatImage)) await growDisk(image, size, options, options.preallocation);
  else {
    await image.extend(size);
    if (options.preallocation !== 'off' && isRaw(image)) await preallocateFrom(before, image);
  }
  return image.geometry.virtualSize;
}

/** Gives what is behind `before` its place; what gets none goes again. A disk that stayed larger would seem to have it when this is tried again. */
async function preallocateFrom(before: ByteLength, image: FlatImage): Promise<void> {
  try {
    await image.preallocate(rangeBetween(guestOffset(before), image.geometry.virtualSize));
    await image.flush();
  } catch (cause) {
    await image.shrink(before);
    throw cause;
  }
}

/** Resolves with the size of the disk then. */
async function shrink(image: Image, size: ByteLength): Promise<number> {
  if (isQcow2(image)) {
    await image.shrink(size);
    return image.geometry.virtualSize;
  }
  if (!(image instanceof FlatImage))
    throw new UsageError(`${image.label}: a ${image.format} image does not shrink`);
  await image.shrink(size);
  return image.geometry.virtualSize;
}
