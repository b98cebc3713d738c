import type { BackingReference, CreateImageOptions, Image } from '@downfold/image';
import type { ImageEncryption } from '@downfold/luks';
import { luks } from '@downfold/luks-image';
import { type Preallocation, type Qcow2CreateOptions, qcow2 } from '@downfold/qcow2';
import { type RawCreateOptions, raw } from '@downfold/raw';
import type { Storage } from '@downfold/storage';
import { isVersion2, type Settings } from './create-settings.ts';
import { formatOf, IMAGE_LIMITS } from './environment.ts';
import { UsageError } from './failure.ts';
import { parseBytes } from './output/bytes.ts';

/** Options that every format's `create` takes. */
export type NewImageOptions = Qcow2CreateOptions & RawCreateOptions;

/** A format that new images can have. */
export interface NewFormat {
  readonly name: string;
  /** A new image shows zeros; else noise where nobody wrote. */
  readonly showsZeros: boolean;
  create(storage: Storage, options: NewImageOptions): Promise<Image>;
}

const NEW: Readonly<Record<string, NewFormat>> = {
  qcow2: { name: qcow2.name, showsZeros: true, create: qcow2.create },
  raw: { name: raw.name, showsZeros: true, create: raw.create },
  luks: {
    name: luks.name,
    showsZeros: false,
    // as QEMU: at once, whatever the size
    create: (storage, { encryption, ...options }) =>
      luks.create(storage, {
        ...options,
        encryption: encryption as ImageEncryption,
        unwritten: 'noise',
      }),
  },
};

/** The format of `-f` or `-O`, for a new image. @throws UsageError for a name that is not there */
export function newFormatOf(name: string): NewFormat {
  return NEW[formatOf(name).name] as NewFormat;
}

/** Image formats of QEMU that backing files may have besides: `create -u` writes their names, and looks at nothing. */
const OTHERS = 'bochs cloop dmg parallels qcow qed vdi vhdx vmdk vpc'.split(' ');

/** `-b` and `-F`, or the settings of the same meaning. @throws UsageError for one without the other, and for a format that nobody has */
export function backingFor(
  file: string,
  options: { readonly backing?: string; readonly backingFormat?: string },
  settings: Settings,
): BackingReference | null {
  const name = options.backing ?? settings['backing_file'];
  const format = options.backingFormat ?? settings['backing_fmt'];
  if (name === undefined && format === undefined) return null;
  if (name === undefined)
    throw new UsageError(`${file}: Backing format cannot be used without backing file`);
  if (format === undefined)
    throw new UsageError(
      `${file}: Backing file specified without backing format; say it with '-F qcow2' or '-F raw'`,
    );
  if (!OTHERS.includes(format)) formatOf(format);
  return { name, format };
}

/** Options of `create` of a format, from what `-o` said. */
export function createOptions(
  format: NewFormat,
  settings: Settings,
  common: CreateImageOptions,
  encryption: ImageEncryption | null = null,
): NewImageOptions {
  const { preallocation: mode = 'off' } = settings;
  // where nothing can be reserved, `falloc` is `full`
  if (format.name === 'raw') return { ...common, preallocated: mode !== 'off' };
  const encrypted = encryption === null ? {} : { encryption };
  if (format.name === 'luks') return { ...common, ...encrypted };
  const preallocation = settings['preallocation'] as Preallocation | undefined;
  const clusterSize = settings['cluster_size'];
  const refcountBits = settings['refcount_bits'];
  return {
    ...common,
    limits: IMAGE_LIMITS,
    ...(clusterSize === undefined ? {} : { clusterSize: parseBytes(clusterSize, 'cluster_size') }),
    ...(refcountBits === undefined ? {} : { refcountBits: Number(refcountBits) }),
    ...(preallocation === undefined ? {} : { preallocation }),
    version: isVersion2(settings) ? 2 : 3,
    compression: settings['compression_type'] === 'zstd' ? 'zstd' : 'deflate',
    extendedL2: settings['extended_l2'] === 'on',
    lazyRefcounts: settings['lazy_refcounts'] === 'on',
    ...encrypted,
  };
}
