import type { GivenSecret } from '@downfold/host';
import type { BackingReference, CreateImageOptions } from '@downfold/image';
import type { Storage } from '@downfold/storage';
import { alignUp, type ByteLength, SECTOR_BYTES } from '@downfold/units';
import { kindOf, overwrite } from '../copy/in-place.ts';
import {
  asksForHelp,
  ENCRYPT_SETTINGS,
  LUKS_SETTINGS,
  type Settings,
  settingsHelp,
  settingsOf,
} from '../create-settings.ts';
import { backend, openAlone } from '../environment.ts';
import { UsageError } from '../failure.ts';
import { encryptionFor } from '../new-encryption.ts';
import {
  backingFor,
  createOptions,
  type NewFormat,
  type NewImageOptions,
  newFormatOf,
} from '../new-image.ts';
import { parseBytes } from '../output/bytes.ts';
import { print, printResult } from '../output/print.ts';
import { absolute, absoluteFrom, directoryOf } from '../paths.ts';
import type { NamedSecret } from '../secrets.ts';

/** Options of `create`. */
export interface CreateOptions {
  readonly format: string;
  readonly output: string;
  readonly backing?: string;
  readonly backingFormat?: string;
  readonly unsafe?: boolean;
  readonly option?: readonly string[];
  readonly quiet?: boolean;
  readonly secret?: readonly GivenSecret[];
  readonly object?: readonly NamedSecret[];
}

/** `downfold create`: a new, empty image; never over an existing file, but on a block device without an image. */
export async function create(
  file: string | undefined,
  size: string | undefined,
  options: CreateOptions,
): Promise<number> {
  const format = newFormatOf(options.format);
  if (asksForHelp(options.option ?? [])) {
    print(settingsHelp(format.name));
    return 0;
  }
  if (file === undefined) throw new UsageError('Expecting image file name');
  const settings = settingsOf(options.option ?? [], format.name);
  const backing = backingFor(file, options, settings);
  if (size !== undefined && settings['size'] !== undefined)
    throw new UsageError(`${file}: The image size must be specified only once`);
  const said = await sizeOf(file, size ?? settings['size'], backing, options.unsafe === true);
  const virtualSize = alignUp(said, SECTOR_BYTES);
  const common: CreateImageOptions = { virtualSize, backing };
  const all = createOptions(
    format,
    settings,
    common,
    encryptionFor(file, format.name, settings, options),
  );
  await createAt(file, format, all, dataFileOf(settings));
  const created = { filename: file, format: format.name, 'virtual-size': virtualSize };
  printResult(options, created, () => formatted(file, format.name, said, all, settings));
  return 0;
}

/** An external data file that is to be made. */
interface NewDataFile {
  /** As the image is to call it. */
  readonly name: string;
  readonly raw: boolean;
}

/** @throws UsageError for what goes only with a data file */
function dataFileOf(settings: Settings): NewDataFile | null {
  const { data_file: name, data_file_raw: raw } = settings;
  if (name !== undefined) return { name, raw: raw === 'on' };
  if (raw === 'on') throw new UsageError('data-file-raw requires data-file');
  return null;
}

/** Creates the file and the image in it, and the data file; files without a whole image are removed again. */
async function createAt(
  file: string,
  format: NewFormat,
  options: NewImageOptions,
  data: NewDataFile | null,
): Promise<void> {
  await using made = new AsyncDisposableStack();
  const createFile = async (path: string): Promise<Storage> => {
    const storage = await backend.create(path, { secret: false });
    made.defer(() => backend.remove(path));
    made.use(storage);
    return storage;
  };
  const path = absolute(file);
  const onDevice = (await kindOf(path)) === 'block-device';
  if (onDevice && format.name === 'raw') {
    await assertRoom(path, options.virtualSize);
    return;
  }
  await using device = onDevice ? await overwrite(path) : null;
  const storage = device?.storage ?? (await createFile(path));
  const dataPath = data === null ? null : absoluteFrom(file, data.name);
  const dataFile =
    data === null || dataPath === null
      ? {}
      : { dataFile: { ...data, storage: await createFile(dataPath) } };
  const image = await format.create(storage, { ...options, ...dataFile });
  await image[Symbol.asyncDispose]();
  // it is whole: from here on nothing is removed
  made.move();
  for (const directory of new Set([file, dataPath ?? file].map(directoryOf)))
    await backend.flushDirectory(directory, 'create: name of the new image');
}

/** A raw image on a device is the device, or the start of it: there is nothing to be written. */
async function assertRoom(path: string, size: number): Promise<void> {
  await using storage = await backend.open(path, 'read');
  const length = await storage.length();
  if (length < size)
    throw new UsageError(`${path}: has ${length} bytes, and the image needs ${size}`);
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
  const path = absoluteFrom(file, backing.name);
  // as qemu-img: only the size is looked at, whoever writes it
  await using opened = await openAlone(
    path,
    backing.format ?? '',
    { forceShare: true },
    { describes: true },
  );
  return own ?? opened.image.geometry.virtualSize;
}

/** The line that qemu-img prints. */
function formatted(
  file: string,
  format: string,
  size: number,
  options: NewImageOptions,
  settings: Settings,
): string {
  const { backing } = options;
  const { preallocation } = settings;
  const parts = [`Formatting '${file}', fmt=${format}`];
  const said = (names: readonly string[]): readonly string[] =>
    names.flatMap((name) => (settings[name] === undefined ? [] : [`${name}=${settings[name]}`]));
  parts.push(...said(['encryption', ...ENCRYPT_SETTINGS]));
  if (format === 'qcow2')
    parts.push(
      `cluster_size=${options.clusterSize ?? 65_536}`,
      `extended_l2=${settings['extended_l2'] ?? 'off'}`,
      ...(preallocation === undefined ? [] : [`preallocation=${preallocation}`]),
      `compression_type=${settings['compression_type'] ?? 'zlib'}`,
    );
  parts.push(`size=${size}`);
  parts.push(...said(LUKS_SETTINGS));
  if (format === 'raw') parts.push(...said(['nocow', 'preallocation']));
  parts.push(...said(['compat']));
  if (backing != null) parts.push(`backing_file=${backing.name}`, `backing_fmt=${backing.format}`);
  parts.push(...said(['data_file', 'data_file_raw']));
  if (format === 'qcow2')
    parts.push(
      `lazy_refcounts=${settings['lazy_refcounts'] ?? 'off'}`,
      `refcount_bits=${options.refcountBits ?? 16}`,
    );
  const { extent_size_hint: hint } = settings;
  if (format !== 'raw') parts.push(...said(['nocow']));
  if (hint !== undefined) parts.push(`extent_size_hint=${parseBytes(hint, 'extent_size_hint')}`);
  return parts.join(' ');
}
