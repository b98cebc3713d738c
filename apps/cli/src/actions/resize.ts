import { viewOf } from '@downfold/chain';
import type { Image } from '@downfold/image';
import { isQcow2, type Preallocation } from '@downfold/qcow2';
import { alignUp, type ByteLength, byteLength, guestOffset, rangeBetween } from '@downfold/units';
import { type Access, openBelow, openForWriting } from '../environment.ts';
import { UsageError } from '../failure.ts';
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

const SECTOR_BYTES = 512;

/** `downfold resize`: the disk of FILE gets another size; `+` and `-` change the present one. */
export async function resize(file: string, size: string, options: ResizeOptions): Promise<number> {
  await using opened = await openForWriting(file, options.format, options);
  const { image } = opened;
  const before = image.geometry.virtualSize;
  const wanted = sizeFrom(size, before);
  if (options.preallocation !== 'off' && (wanted < before || !isQcow2(image)))
    throw new UsageError(
      `--preallocation=${options.preallocation} is of what a qcow2 image grows by`,
    );
  if (wanted < before && options.shrink !== true)
    throw new UsageError(
      `Use the --shrink option to perform a shrink operation: all data past ${wanted} bytes would be lost`,
    );
  await (wanted < before ? shrink(image, wanted) : grow(image, wanted, options));
  const told = { filename: file, 'virtual-size': image.geometry.virtualSize, before };
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

/** What the backing file shows past the old end must not come into view: it is made zeros. */
async function grow(image: Image, size: ByteLength, options: ResizeOptions): Promise<void> {
  const before = image.geometry.virtualSize;
  await using below = await openBelow(image, options);
  const fill = below === null ? null : viewOf(below.layers, below.layers.length - 1);
  await image.resize(size, { fill });
  if (isQcow2(image) && image.geometry.virtualSize > before)
    await image.preallocate(
      rangeBetween(guestOffset(before), image.geometry.virtualSize),
      options.preallocation,
    );
  await image.flush();
}

async function shrink(image: Image, size: ByteLength): Promise<void> {
  if (isQcow2(image)) return await image.shrink(size);
  // a raw image is its file
  await image.data.setLength(alignUp(size, SECTOR_BYTES));
  await image.data.flush('resize: the new end');
}
