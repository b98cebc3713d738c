import { viewOf } from '@downfold/chain';
import type { Image } from '@downfold/image';
import { type Amendment, isQcow2 } from '@downfold/qcow2';
import { byteLength } from '@downfold/units';
import { type Settings, settingsHelp, settingsOf } from '../create-settings.ts';
import { type Access, openBelow, openForWriting } from '../environment.ts';
import { UsageError } from '../failure.ts';
import { notThereYet } from '../later.ts';
import { parseBytes } from '../output/bytes.ts';
import { print, printResult } from '../output/print.ts';

/** Options of `amend`. */
export interface AmendOptions extends Access {
  readonly format: string;
  readonly output: string;
  readonly option: readonly string[];
  readonly quiet?: boolean;
}

/** `downfold amend`: changes what a qcow2 image was created with, where that is possible afterwards. */
export async function amend(file: string, options: AmendOptions): Promise<number> {
  if (options.option.includes('help')) {
    print(settingsHelp(options.format));
    return 0;
  }
  const settings = settingsOf(options.option, options.format);
  await using opened = await openForWriting(file, options.format, options);
  const { image } = opened;
  if (!isQcow2(image))
    throw new UsageError(`Format driver '${image.format}' does not support option amendment`);
  await assertPossible(image, settings);
  await image.amend(amendmentOf(settings));
  if (settings['size'] !== undefined) await grow(image, settings['size'], options);
  const { specific } = await image.describe();
  printResult({ ...options, quiet: true }, { filename: file, ...specific }, () => '');
  return 0;
}

function amendmentOf({ compat, lazy_refcounts: lazy }: Settings): Amendment {
  return {
    ...(compat === undefined ? {} : { version: ['0.10', 'v2'].includes(compat) ? 2 : 3 }),
    ...(lazy === undefined ? {} : { lazyRefcounts: lazy === 'on' }),
  };
}

/** What an image can be given after it was made. */
const AMENDABLE: readonly string[] = ['compat', 'lazy_refcounts', 'refcount_bits', 'size'];

/** @throws UsageError for what cannot be changed */
async function assertPossible(image: Image, settings: Settings): Promise<void> {
  for (const name of Object.keys(settings)) {
    if (name.startsWith('backing_'))
      throw new UsageError("'downfold rebase' changes the backing file, and -u its name only");
    if (!AMENDABLE.includes(name)) throw new UsageError(`-o ${name} cannot be changed afterwards`);
  }
  const { refcount_bits: bits } = settings;
  const { specific } = await image.describe();
  if (bits !== undefined && bits !== String(specific['refcount-bits']))
    notThereYet(`-o refcount_bits=${bits}`, "meanwhile 'qemu-img amend'");
}

async function grow(image: Image, text: string, access: Access): Promise<void> {
  const size = byteLength(parseBytes(text, 'image size'));
  if (size < image.geometry.virtualSize)
    throw new UsageError("-o size makes the disk larger; 'downfold resize --shrink' cuts it");
  await using below = await openBelow(image, access);
  const fill = below === null ? null : viewOf(below.layers, below.layers.length - 1);
  await image.resize(size, { fill });
  await image.flush();
}
