// The numbers of the protocol. Source: NetworkBlockDevice/nbd, doc/proto.md ("Values"), and its branch
// extension-ext-header for extended headers.

/** First words of messages, 32 bits. */
export const MAGIC = {
  request: 0x25609513,
  extendedRequest: 0x21e41c71,
  simpleReply: 0x67446698,
  structuredReply: 0x668e33ef,
  extendedReply: 0x6e8a278c,
} as const;

/** First words of the handshake, 64 bits as `[high, low]`. */
export const HANDSHAKE_MAGIC = {
  /** `NBDMAGIC` */
  greeting: [0x4e42444d, 0x41474943],
  /** `IHAVEOPT` */
  option: [0x49484156, 0x454f5054],
  /** Second word of an oldstyle server. */
  oldstyle: [0x00004202, 0x81861253],
  optionReply: [0x0003e889, 0x045565a9],
} as const;

/** Bits of the server's greeting, and, with the same meaning, of the client's answer. */
export const HANDSHAKE_FLAG = { fixedNewstyle: 1, noZeroes: 2 } as const;

/** Options of the haggling phase. */
export const OPTION = {
  exportName: 1,
  abort: 2,
  list: 3,
  startTls: 5,
  info: 6,
  go: 7,
  structuredReply: 8,
  listMetaContext: 9,
  setMetaContext: 10,
  extendedHeaders: 11,
} as const;

/** Types of replies to options. Those of 2^31 and above are errors. */
export const OPTION_REPLY = {
  ack: 1,
  server: 2,
  info: 3,
  metaContext: 4,
  unsupported: 0x8000_0001,
  policy: 0x8000_0002,
  invalid: 0x8000_0003,
  platform: 0x8000_0004,
  tlsRequired: 0x8000_0005,
  unknown: 0x8000_0006,
  shutdown: 0x8000_0007,
  blockSizeRequired: 0x8000_0008,
  tooBig: 0x8000_0009,
  extendedHeadersRequired: 0x8000_000a,
} as const;

/** Items of `OPTION.info` and `OPTION.go`. */
export const INFO = { export: 0, name: 1, description: 2, blockSize: 3 } as const;

/** What an export can do, as the server tells the client: transmission flags. */
export const EXPORT_FLAG = {
  hasFlags: 0x1,
  readOnly: 0x2,
  flush: 0x4,
  fua: 0x8,
  rotational: 0x10,
  trim: 0x20,
  writeZeroes: 0x40,
  df: 0x80,
  multiConn: 0x100,
  cache: 0x400,
  fastZero: 0x800,
  blockStatusPayload: 0x1000,
} as const;

/** Commands of the transmission phase. */
export const COMMAND = {
  read: 0,
  write: 1,
  disconnect: 2,
  flush: 3,
  trim: 4,
  cache: 5,
  writeZeroes: 6,
  blockStatus: 7,
} as const;

/** Bits that modify a command. */
export const COMMAND_FLAG = {
  fua: 0x1,
  noHole: 0x2,
  df: 0x4,
  reqOne: 0x8,
  fastZero: 0x10,
  payloadLength: 0x20,
} as const;

/** The last chunk of a reply has it. */
export const CHUNK_FLAG_DONE = 1;

/** Types of chunks in structured and extended replies. Those of 2^15 and above are errors. */
export const CHUNK = {
  none: 0,
  data: 1,
  hole: 2,
  blockStatus: 5,
  blockStatusExtended: 6,
  error: 0x8001,
  errorOffset: 0x8002,
} as const;

/** Bits of a status of the metadata context `base:allocation`. */
export const STATE = {
  /** Not allocated. */
  hole: 1,
  /** Reads as zeros. */
  zero: 2,
} as const;

/** The metadata context every NBD peer knows; its statuses are made of `STATE`. */
export const BASE_ALLOCATION = 'base:allocation';
/** QEMU's metadata context: how many layers down the data lies; 1 is the active layer, 0 is nowhere. */
export const ALLOCATION_DEPTH = 'qemu:allocation-depth';

/** Errors of replies. */
export const ERRNO = {
  EPERM: 1,
  EIO: 5,
  ENOMEM: 12,
  EINVAL: 22,
  ENOSPC: 28,
  EOVERFLOW: 75,
  ENOTSUP: 95,
  ESHUTDOWN: 108,
} as const;

/** Name of an error of the protocol. */
export type Errno = keyof typeof ERRNO;

const errnoNames = new Map<number, Errno>(
  (Object.entries(ERRNO) as [Errno, number][]).map(([name, value]) => [value, name]),
);

/** Name of an error value; what the protocol does not define counts as `EINVAL`, as it asks for. */
export function errnoName(value: number): Errno {
  return errnoNames.get(value) ?? 'EINVAL';
}

/** Most bytes of a string (export names, messages, contexts). Source: proto.md, "Conventions". */
export const MAX_STRING: number = 4096;
/** Most bytes of a payload that either side takes: the largest that no peer may call too large. */
export const MAX_PAYLOAD: number = 32 * 1024 * 1024;
/** Most bytes of an option's data, or of a reply to one, that are looked at. */
export const MAX_OPTION: number = 64 * 1024;
/** Most extents in one block status chunk. */
export const MAX_STATUS_EXTENTS: number = 2 ** 20;

/**
 * How requests and replies look: `simple` without negotiation, `structured` with chunks for what has a payload,
 * `extended` with 64-bit lengths and nothing but chunks.
 */
export type Style = 'simple' | 'structured' | 'extended';

/** Limits that requests of one export keep to, in bytes. */
export interface BlockSize {
  /** Offsets and lengths are multiples of it: a power of two up to 65536. */
  readonly minimum: number;
  /** Multiples of it are fast: a power of two from 512. */
  readonly preferred: number;
  /** Most bytes of one read or write. */
  readonly maximumPayload: number;
}

/** What holds when nobody says otherwise. */
export const DEFAULT_BLOCK_SIZE: BlockSize = {
  minimum: 1,
  preferred: 4096,
  maximumPayload: MAX_PAYLOAD,
};

/** A run of bytes with one status in one metadata context. */
export interface StatusExtent {
  /** Bytes, above 0. */
  readonly length: number;
  /** What the context says about them: its bits or its number, 0 to 2^32-1. */
  readonly status: number;
}
