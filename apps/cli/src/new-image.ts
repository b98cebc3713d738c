import type { BackingReference, CreateImageOptions } from '@downfold/image';
import { type Preallocation, type Qcow2CreateOptions, qcow2 } from '@downfold/qcow2';
import { raw } from '@downfold/raw';
import type { Settings } from './create-settings.ts';
import { formatOf } from './environment.ts';
import { UsageError } from './failure.ts';
import { parseBytes } from './output/bytes.ts';

/** A format that new images can have. */
export type NewFormat = typeof qcow2 | typeof raw;

/** The format of `-f` or `-O`, for a new image. @throws UsageError for a name that is not there */
export function newFormatOf(name: string): NewFormat {
  return formatOf(name) === raw ? raw : qcow2;
}

/** `-b` and `-F`, or the settings of the same meaning. */
export function backingFor(
  file: string,
  options: { readonly backing?: string; readonly backingFormat?: string },
  settings: Settings,
): BackingReference | null {
  const name = options.backing ?? settings['backing_file'];
  const format = options.backingFormat ?? settings['backing_fmt'];
  if (name === undefined) return null;
  if (format === undefined)
    throw new UsageError(
      `${file}: Backing file specified without backing format; say it with '-F qcow2' or '-F raw'`,
    );
  return { name, format };
}

/** Options of `create` of a format, from what `-o` said. */
export function createOptions(
  format: NewFormat,
  settings: Settings,
  common: CreateImageOptions,
): Qcow2CreateOptions {
  if (format === raw) return common;
  const preallocation = (settings['preallocation'] ?? 'off') as Preallocation;
  const clusterSize = settings['cluster_size'];
  const refcountBits = settings['refcount_bits'];
  return {
    ...common,
    ...(clusterSize === undefined ? {} : { clusterSize: parseBytes(clusterSize, 'cluster_size') }),
    ...(refcountBits === undefined ? {} : { refcountBits: Number(refcountBits) }),
    preallocation,
    version: ['0.10', 'v2'].includes(settings['compat'] ?? '') ? 2 : 3,
    compression: settings['compression_type'] === 'zstd' ? 'zstd' : 'deflate',
    extendedL2: settings['extended_l2'] === 'on',
    lazyRefcounts: settings['lazy_refcounts'] === 'on',
  };
}
