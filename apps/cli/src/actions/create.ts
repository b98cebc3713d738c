import { posix } from 'node:path';
import type { BackingReference, CreateImageOptions } from '@downfold/image';
import type { Qcow2CreateOptions } from '@downfold/qcow2';
import { alignUp, type ByteLength } from '@downfold/units';
import { type Settings, settingsHelp, settingsOf } from '../create-settings.ts';
import { backend, openAlone } from '../environment.ts';
import { UsageError } from '../failure.ts';
import { backingFor, createOptions, type NewFormat, newFormatOf } from '../new-image.ts';
import { parseBytes } from '../output/bytes.ts';
import { print, printResult } from '../output/print.ts';
import { absolute, directoryOf } from '../paths.ts';

/** Options of `create`. */
export interface CreateOptions {
  readonly format: string;
  readonly output: string;
  readonly backing?: string;
  readonly backingFormat?: string;
  readonly unsafe?: boolean;
  readonly option?: readonly string[];
  readonly quiet?: boolean;
}

/** QEMU counts disks in these, and would not see what is left over. */
const SECTOR_BYTES = 512;

/** `downfold create`: a new, empty image; never over an existing file. */
export async function create(
  file: string,
  size: string | undefined,
  options: CreateOptions,
): Promise<number> {
  const format = newFormatOf(options.format);
  if (options.option?.includes('help') === true) {
    print(settingsHelp(format.name));
    return 0;
  }
  const settings = settingsOf(options.option ?? [], format.name);
  const backing = backingFor(file, options, settings);
  const said = await sizeOf(file, size ?? settings['size'], backing, options.unsafe === true);
  const virtualSize = alignUp(said, SECTOR_BYTES);
  const common: CreateImageOptions = { virtualSize, backing };
  const all = createOptions(format, settings, common);
  await createAt(file, format, all);
  const created = { filename: file, format: format.name, 'virtual-size': virtualSize };
  printResult(options, created, () => formatted(file, format.name, said, all, settings));
  return 0;
}

/** Creates the file and the image in it; a file without a whole image is removed again. */
async function createAt(
  file: string,
  format: NewFormat,
  options: Qcow2CreateOptions,
): Promise<void> {
  const path = absolute(file);
  const storage = await backend.create(path, { secret: false });
  try {
    await using _image = await format.create(storage, options);
  } catch (cause) {
    await storage[Symbol.asyncDispose]();
    await backend.remove(path);
    throw cause;
  }
  await backend.flushDirectory(directoryOf(file), 'create: name of the new image');
}

/**
 * The size that was said, or else that of the backing file, which is opened in any case unless `unsafe`: it must
 * be there and be what `-F` says.
 */
async function sizeOf(
  file: string,
  said: string | undefined,
  backing: BackingReference | null,
  unsafe: boolean,
): Promise<ByteLength> {
  const own = said === undefined ? null : parseBytes(said, 'image size');
  if (own === null && (backing === null || unsafe))
    throw new UsageError(
      `${file}: Image creation needs a size, such as 'downfold create ${file} 10G'`,
    );
  if (backing === null || unsafe) return own as ByteLength;
  const path = posix.resolve(directoryOf(file), backing.name);
  // as qemu-img: only the size is looked at, whoever writes it
  await using opened = await openAlone(path, backing.format ?? '', { forceShare: true });
  return own ?? opened.image.geometry.virtualSize;
}

/** The line that qemu-img prints. */
function formatted(
  file: string,
  format: string,
  size: number,
  options: Qcow2CreateOptions,
  settings: Settings,
): string {
  const { backing } = options;
  const { preallocation } = settings;
  const parts = [`Formatting '${file}', fmt=${format}`];
  if (format === 'qcow2')
    parts.push(
      `cluster_size=${options.clusterSize ?? 65_536}`,
      `extended_l2=${settings['extended_l2'] ?? 'off'}`,
      ...(preallocation === undefined ? [] : [`preallocation=${preallocation}`]),
      `compression_type=${settings['compression_type'] ?? 'zlib'}`,
    );
  parts.push(`size=${size}`);
  if (backing != null) parts.push(`backing_file=${backing.name}`, `backing_fmt=${backing.format}`);
  if (settings['compat'] !== undefined) parts.push(`compat=${settings['compat']}`);
  if (format === 'qcow2')
    parts.push(
      `lazy_refcounts=${settings['lazy_refcounts'] ?? 'off'}`,
      `refcount_bits=${options.refcountBits ?? 16}`,
    );
  return parts.join(' ');
}
