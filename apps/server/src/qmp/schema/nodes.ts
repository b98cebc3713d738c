import {
  about,
  alternate,
  bool,
  int,
  lazy,
  nothing,
  oneOf,
  optional,
  str,
  struct,
  type Type,
  union,
} from '@downfold/qmp';
import { type SocketAddress, socketAddress } from './exports.ts';

/** Formats that may be named. */
export const FORMATS = ['qcow2', 'raw', 'luks'] as const;
export type FormatName = (typeof FORMATS)[number];

/** Where the bytes of an image may lie. */
export type ProtocolName = 'file' | 'nbd' | 'http' | 'https';

/** What all nodes have. */
interface CommonOptions {
  readonly 'node-name'?: string;
  readonly 'read-only'?: boolean;
  readonly 'auto-read-only'?: boolean;
  readonly discard?: 'ignore' | 'unmap';
}

/** A node that is a file. */
interface FileOptions extends CommonOptions {
  readonly driver: 'file';
  readonly filename: string;
}

/** A node that is an export of an NBD server. */
export interface NbdOptions extends CommonOptions {
  readonly driver: 'nbd';
  readonly server: SocketAddress;
  readonly export?: string;
}

/** A node that is a file behind HTTP. */
interface HttpOptions extends CommonOptions {
  readonly driver: 'http' | 'https';
  readonly url: string;
}

/** A node that holds the bytes of an image. */
export type ProtocolOptions = FileOptions | NbdOptions | HttpOptions;

/** Whether a node to be made is such a one. */
export function isProtocol(options: BlockdevOptions): options is ProtocolOptions {
  return !FORMATS.some((format) => format === options.driver);
}

/** A node that is an image in a file. */
export interface ImageOptions extends CommonOptions {
  readonly driver: FormatName;
  readonly file: BlockdevRef;
  /** Absent: as the image says; null or '': none. */
  readonly backing?: BlockdevRef | null;
  readonly encrypt?: EncryptOptions;
  /** Of a LUKS image. */
  readonly 'key-secret'?: string;
}

/** What opens an image that is encrypted. */
interface EncryptOptions {
  readonly format?: 'luks';
  readonly 'key-secret'?: string;
}

/** The object that holds an image's secret; null: none is named. */
export function keySecretOf(options: ImageOptions): string | null {
  return options['key-secret'] ?? options.encrypt?.['key-secret'] ?? null;
}

export type BlockdevOptions = ProtocolOptions | ImageOptions;
/** Another node: by its name, or made here. */
export type BlockdevRef = BlockdevOptions | string;

const ref: Type<BlockdevRef> = alternate('BlockdevRef', [lazy(() => blockdevOptions), str]);
const refOrNull: Type<BlockdevRef | null> = alternate('BlockdevRefOrNull', [
  lazy(() => blockdevOptions),
  str,
  nothing,
]);

const encryptOptions: Type<EncryptOptions> = struct(
  { format: optional(oneOf(['luks'])), 'key-secret': optional(str) },
  'BlockdevQcow2Encryption',
);

/** A node to be made. */
export const blockdevOptions: Type<BlockdevOptions> = union({
  name: 'BlockdevOptions',
  tag: 'driver',
  tagType: 'BlockdevDriver',
  base: {
    'node-name': about(
      'how others refer to it; a node that is named nowhere else needs one',
      optional(str),
    ),
    'read-only': about('never written, whatever uses it; default false', optional(bool)),
    'auto-read-only': about(
      'taken for the sake of clients; files are opened for writing only when something writes',
      optional(bool),
    ),
    discard: about(
      "what a guest's discards do while this is the active layer; default ignore",
      optional(oneOf(['ignore', 'unmap'], 'BlockdevDiscardOptions')),
    ),
  },
  variants: {
    file: struct({ filename: str }, 'BlockdevOptionsFile'),
    nbd: struct(
      {
        server: socketAddress,
        export: about('default: the one without a name', optional(str)),
      },
      'BlockdevOptionsNbd',
    ),
    http: struct({ url: about('for reading only', str) }, 'BlockdevOptionsCurlHttp'),
    https: struct({ url: about('for reading only', str) }, 'BlockdevOptionsCurlHttps'),
    qcow2: struct(
      {
        file: ref,
        backing: about(
          'default: the file that the image names, found under the rules for backing files; null: none',
          optional(refOrNull),
        ),
        encrypt: about(
          'of an encrypted image: `key-secret` is the id of a secret, which --object or object-add made',
          optional(encryptOptions),
        ),
      },
      'BlockdevOptionsQcow2',
    ),
    raw: struct({ file: ref }, 'BlockdevOptionsRaw'),
    luks: struct(
      {
        file: ref,
        'key-secret': about('id of the secret, which --object or object-add made', optional(str)),
      },
      'BlockdevOptionsLUKS',
    ),
  },
});

/** What is told of the image of a node. */
const imageInfo: Type<object> = struct(
  {
    filename: str,
    format: str,
    'virtual-size': int,
    'actual-size': optional(int),
    'dirty-flag': optional(bool),
    encrypted: optional(bool),
    'cluster-size': optional(int),
    'backing-filename': optional(str),
    'full-backing-filename': optional(str),
    'backing-filename-format': optional(str),
    'backing-image': about('the layer below; absent with `flat`', optional(lazy(() => imageInfo))),
  },
  'ImageInfo',
);

/** What is told of a node. Members without a meaning here are there because clients expect them. */
export const blockDeviceInfo: Type<object> = struct(
  {
    file: str,
    'node-name': optional(str),
    ro: bool,
    drv: str,
    backing_file: optional(str),
    backing_file_depth: int,
    encrypted: bool,
    detect_zeroes: oneOf(['off'], 'BlockdevDetectZeroesOptions'),
    bps: int,
    bps_rd: int,
    bps_wr: int,
    iops: int,
    iops_rd: int,
    iops_wr: int,
    image: imageInfo,
    cache: struct({ writeback: bool, direct: bool, 'no-flush': bool }, 'BlockdevCacheInfo'),
    write_threshold: int,
  },
  'BlockDeviceInfo',
);
