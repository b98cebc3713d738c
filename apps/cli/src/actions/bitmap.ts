import type { Image } from '@downfold/image';
import { type BitmapContent, type Bitmaps, isQcow2 } from '@downfold/qcow2';
import { type Access, openAlone, openForWriting } from '../environment.ts';
import { UsageError } from '../failure.ts';
import { parseBytes } from '../output/bytes.ts';

/** Options of `bitmap`. */
export interface BitmapOptions extends Access {
  readonly format: string;
  readonly sourceFile?: string;
  readonly sourceFormat: string;
  readonly granularity?: string;
}

/** One thing to do; `source`: of `merge`, the bitmap that is added. */
interface Deed {
  readonly name: string;
  readonly source: string;
}

/** `downfold bitmap`: changes one persistent bitmap, each deed durably, in the order given. */
export async function bitmap(
  file: string,
  name: string,
  deeds: readonly Deed[],
  options: BitmapOptions,
): Promise<number> {
  const asked = new Set(deeds.map((deed) => deed.name));
  if (asked.size === 0)
    throw new UsageError(
      'Need at least one of --add, --remove, --clear, --enable, --disable, or --merge',
    );
  if (options.granularity !== undefined && !asked.has('add'))
    throw new UsageError('granularity only supported with --add');
  if (options.sourceFile !== undefined && !asked.has('merge'))
    throw new UsageError('Merge bitmap source file only supported with --merge');
  const granularity =
    options.granularity === undefined
      ? {}
      : { granularity: parseBytes(options.granularity, 'granularity') };
  await using opened = await openForWriting(file, options.format, options);
  const bitmaps = bitmapsOf(opened.image, file);
  // what cannot be had is known before the first deed, which would stay done
  const foreign = await contentsIn(options.sourceFile, deeds, options);
  for (const deed of deeds) {
    if (deed.name === 'add') await bitmaps.add({ name, ...granularity });
    else if (deed.name === 'merge')
      await bitmaps.merge(name, foreign.get(deed) ?? (await bitmaps.content(deed.source)));
    else await bitmaps[deed.name as 'remove' | 'clear' | 'enable' | 'disable'](name);
  }
  return 0;
}

/** What the bitmaps to merge say that are in another image; without one, nothing. */
async function contentsIn(
  file: string | undefined,
  deeds: readonly Deed[],
  options: BitmapOptions,
): Promise<ReadonlyMap<Deed, BitmapContent>> {
  const contents = new Map<Deed, BitmapContent>();
  if (file === undefined) return contents;
  await using opened = await openAlone(file, options.sourceFormat, options);
  const bitmaps = bitmapsOf(opened.image, file);
  for (const deed of deeds)
    if (deed.name === 'merge') contents.set(deed, await bitmaps.content(deed.source));
  return contents;
}

/** @throws UsageError when the format has none */
function bitmapsOf(image: Image, file: string): Bitmaps {
  if (isQcow2(image)) return image.bitmaps;
  throw new UsageError(`${file}: ${image.format} images have no bitmaps`);
}
