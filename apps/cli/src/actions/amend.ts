import type { Image } from '@downfold/image';
import { type Amendment, isQcow2 } from '@downfold/qcow2';
import type { ByteLength } from '@downfold/units';
import {
  asksForHelp,
  isVersion2,
  type Settings,
  settingsHelp,
  settingsOf,
} from '../create-settings.ts';
import { type Access, assertNoStaging, openForWriting } from '../environment.ts';
import { UsageError } from '../failure.ts';
import { assertWholeSectors, growDisk } from '../grow-disk.ts';
import { parseBytes } from '../output/bytes.ts';
import { print, printJson } from '../output/print.ts';

/** Options of `amend`. */
export interface AmendOptions extends Access {
  readonly format: string;
  readonly output: string;
  readonly option: readonly string[];
  readonly quiet?: boolean;
}

/** `downfold amend`: changes what a qcow2 image was created with, where that is possible afterwards. */
export async function amend(file: string | undefined, options: AmendOptions): Promise<number> {
  if (asksForHelp(options.option)) {
    if (options.format !== 'qcow2') throw notAmended(options.format);
    print(settingsHelp(options.format, AMENDABLE));
    return 0;
  }
  if (file === undefined) throw new UsageError('Expecting one image file name');
  const settings = settingsOf(options.option, options.format);
  await using opened = await openForWriting(file, options.format, options);
  const { image } = opened;
  if (!isQcow2(image)) throw notAmended(image.format);
  assertPossible(settings);
  // what is not referred to is free afterwards
  if (settings['refcount_bits'] !== undefined) await assertNoStaging(image.label);
  const size = sizeOf(image, settings);
  await image.amend(amendmentOf(settings));
  if (size !== null) await growDisk(image, size, options);
  if (options.output === 'json') {
    const { specific } = await image.describe();
    printJson({ filename: file, ...specific });
  }
  return 0;
}

function amendmentOf(settings: Settings): Amendment {
  const { compat, lazy_refcounts: lazy, refcount_bits: bits, data_file_raw: raw } = settings;
  return {
    ...(compat === undefined ? {} : { version: isVersion2(settings) ? 2 : 3 }),
    ...(lazy === undefined ? {} : { lazyRefcounts: lazy === 'on' }),
    ...(bits === undefined ? {} : { refcountBits: Number(bits) }),
    ...(raw === undefined ? {} : { dataFileRaw: raw === 'on' }),
  };
}

function notAmended(format: string): UsageError {
  return new UsageError(`Format driver '${format}' does not support option amendment`);
}

/** What an image can be given after it was made. */
const AMENDABLE: readonly string[] = [
  'compat',
  'data_file_raw',
  'lazy_refcounts',
  'refcount_bits',
  'size',
];

/** @throws UsageError for what cannot be changed */
function assertPossible(settings: Settings): void {
  for (const name of Object.keys(settings)) {
    if (name.startsWith('backing_'))
      throw new UsageError("'downfold rebase' changes the backing file, and -u its name only");
    if (!AMENDABLE.includes(name)) throw new UsageError(`-o ${name} cannot be changed afterwards`);
  }
}

/** The size that is asked for; null: none is. @throws UsageError for one that would lose data */
function sizeOf(image: Image, { size: text }: Settings): ByteLength | null {
  if (text === undefined) return null;
  const size = parseBytes(text, 'image size');
  assertWholeSectors(size);
  if (size < image.geometry.virtualSize)
    throw new UsageError("-o size makes the disk larger; 'downfold resize --shrink' cuts it");
  return size;
}
