import { posix } from 'node:path';
import type { BackingReference, CreateImageOptions } from '@downfold/image';
import type { Qcow2CreateOptions } from '@downfold/qcow2';
import { qcow2 } from '@downfold/qcow2';
import { raw } from '@downfold/raw';
import type { ByteLength } from '@downfold/units';
import { backend, formatOf, openAlone } from '../environment.ts';
import { UsageError } from '../failure.ts';
import { parseBytes } from '../output/bytes.ts';
import { print, printJson } from '../output/print.ts';
import { absolute, directoryOf } from '../paths.ts';

/** Options of `create`. */
export interface CreateOptions {
  readonly format: string;
  readonly output: string;
  readonly backing?: string;
  readonly backingFormat?: string;
  readonly option?: readonly string[];
  readonly quiet?: boolean;
}

/** `downfold create`: a new, empty image; never over an existing file. */
export async function create(
  file: string,
  size: string | undefined,
  options: CreateOptions,
): Promise<number> {
  const format = formatOf(options.format);
  const settings = settingsOf(options.option ?? []);
  const backing = backingOf(file, options);
  const said = size ?? settings.get('size');
  settings.delete('size');
  const virtualSize =
    said === undefined ? await sizeOfBacking(file, backing) : parseBytes(said, 'image size');
  const common: CreateImageOptions = { virtualSize, backing };
  const create = format === qcow2 ? qcow2Options(settings, common) : common;
  if (format !== qcow2) assertNone(settings, format.name);
  if (backing !== null && said !== undefined) await sizeOfBacking(file, backing);
  await createAt(file, format === qcow2 ? qcow2 : raw, create);
  const created = { filename: file, format: format.name, 'virtual-size': virtualSize };
  if (options.output === 'json') printJson(created);
  else if (options.quiet !== true) print(formatted(file, format.name, create));
  return 0;
}

/** Creates the file and the image in it; a file without a whole image is removed again. */
async function createAt(
  file: string,
  format: typeof qcow2 | typeof raw,
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

function backingOf(file: string, options: CreateOptions): BackingReference | null {
  if (options.backing === undefined) return null;
  if (options.backingFormat === undefined)
    throw new UsageError(
      `${file}: Backing file specified without backing format; say it with '-F qcow2' or '-F raw'`,
    );
  return { name: options.backing, format: options.backingFormat };
}

/** Opens the backing file: it must be there and be what `-F` says. */
async function sizeOfBacking(file: string, backing: BackingReference | null): Promise<ByteLength> {
  if (backing === null)
    throw new UsageError(
      `${file}: Image creation needs a size, such as 'downfold create ${file} 10G'`,
    );
  const path = posix.resolve(directoryOf(file), backing.name);
  await using image = await openAlone(path, backing.format ?? '');
  return image.geometry.virtualSize;
}

/** `-o a=b,c=d`, given once or more. */
function settingsOf(options: readonly string[]): Map<string, string> {
  const settings = new Map<string, string>();
  for (const part of options.flatMap((option) => option.split(','))) {
    const at = part.indexOf('=');
    settings.set(at < 0 ? part : part.slice(0, at), at < 0 ? 'on' : part.slice(at + 1));
  }
  return settings;
}

function qcow2Options(
  settings: Map<string, string>,
  common: CreateImageOptions,
): Qcow2CreateOptions {
  const take = (name: string): string | undefined => {
    const value = settings.get(name);
    settings.delete(name);
    return value;
  };
  const clusterSize = take('cluster_size');
  const refcountBits = take('refcount_bits');
  const compat = take('compat');
  const compression = choice('compression_type', take('compression_type') ?? 'zlib', [
    'zlib',
    'zstd',
  ]);
  choice('preallocation', take('preallocation') ?? 'off', ['off']);
  const extendedL2 = onOff('extended_l2', take('extended_l2'));
  const lazyRefcounts = onOff('lazy_refcounts', take('lazy_refcounts'));
  assertNone(settings, 'qcow2');
  return {
    ...common,
    ...(clusterSize === undefined ? {} : { clusterSize: parseBytes(clusterSize, 'cluster_size') }),
    ...(refcountBits === undefined ? {} : { refcountBits: Number(refcountBits) }),
    version: choice('compat', compat ?? '1.1', ['0.10', '1.1', 'v2', 'v3']).match(/^(0|v2)/)
      ? 2
      : 3,
    compression: compression === 'zstd' ? 'zstd' : 'deflate',
    extendedL2,
    lazyRefcounts,
  };
}

function choice(name: string, value: string, allowed: readonly string[]): string {
  if (allowed.includes(value)) return value;
  throw new UsageError(`Invalid -o ${name}=${value}: ${name} can be ${allowed.join(' or ')}`);
}

function onOff(name: string, value: string | undefined): boolean {
  return choice(name, value ?? 'off', ['on', 'off']) === 'on';
}

function assertNone(settings: ReadonlyMap<string, string>, format: string): void {
  const [name] = settings.keys();
  if (name !== undefined) throw new UsageError(`Invalid -o option '${name}' for format ${format}`);
}

function formatted(file: string, format: string, options: Qcow2CreateOptions): string {
  const parts = [`Formatting '${file}', fmt=${format}`];
  const onOffWord = (value: boolean | undefined): string => (value === true ? 'on' : 'off');
  if (format === 'qcow2')
    parts.push(
      `cluster_size=${options.clusterSize ?? 65_536}`,
      `extended_l2=${onOffWord(options.extendedL2)}`,
      `compression_type=${options.compression === 'zstd' ? 'zstd' : 'zlib'}`,
    );
  parts.push(`size=${options.virtualSize}`);
  if (options.backing != null)
    parts.push(`backing_file=${options.backing.name}`, `backing_fmt=${options.backing.format}`);
  if (format === 'qcow2')
    parts.push(
      `lazy_refcounts=${onOffWord(options.lazyRefcounts)}`,
      `refcount_bits=${options.refcountBits ?? 16}`,
    );
  return parts.join(' ');
}
