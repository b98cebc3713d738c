/**
 * Every byte offset, bit and mask of the qcow2 format, and nothing else. All integers are big-endian.
 * Source: QEMU, docs/interop/qcow2.rst (section names below).
 *
 * 64-bit entries are handled as two 32-bit words, `high` and `low`: exact, and far faster than BigInt.
 */
import { type Field, flags64, type Layout, layout, raw, u8, u16, u32, u64 } from '@downfold/units';

const TWO_TO_32 = 0x1_0000_0000;
/** `high` words from here on mean an offset above 2^53-1. */
const HIGH_TOO_LARGE = 0x0020_0000;

/** Unit of atomic writes that every ordering rule builds on, bytes. */
export const SECTOR_BYTES = 512;

// ---- Header ------------------------------------------------------------------------------------

/** "QFI\xfb". */
export const MAGIC = 0x5146_49fb;
/** Bytes of a version 2 header; of the fixed part of a version 3 header; of the one QEMU writes. */
export const HEADER_V2_BYTES = 72;
export const HEADER_V3_BYTES = 104;
export const HEADER_FULL_BYTES = 112;

/** Header, bytes 0 to 71: versions 2 and 3. */
export interface HeaderV2 {
  readonly magic: number;
  readonly version: number;
  readonly backingFileOffset: number;
  readonly backingFileSize: number;
  readonly clusterBits: number;
  readonly size: number;
  readonly cryptMethod: number;
  readonly l1Size: number;
  readonly l1TableOffset: number;
  readonly refcountTableOffset: number;
  readonly refcountTableClusters: number;
  readonly nbSnapshots: number;
  readonly snapshotsOffset: number;
}

export const headerV2: Layout<HeaderV2> = layout<HeaderV2>(HEADER_V2_BYTES, {
  magic: u32(0),
  version: u32(4),
  backingFileOffset: u64(8),
  backingFileSize: u32(16),
  clusterBits: u32(20),
  size: u64(24),
  cryptMethod: u32(32),
  l1Size: u32(36),
  l1TableOffset: u64(40),
  refcountTableOffset: u64(48),
  refcountTableClusters: u32(56),
  nbSnapshots: u32(60),
  snapshotsOffset: u64(64),
});

/** Feature bits as 32-bit words. All bits that have a meaning lie in the low one. */
type Features = readonly [high: number, low: number];

/** Header, bytes 72 to 103: version 3. Positions are relative to byte 72. */
export interface HeaderV3 {
  readonly incompatible: Features;
  readonly compatible: Features;
  readonly autoclear: Features;
  readonly refcountOrder: number;
  readonly headerLength: number;
}

export const headerV3: Layout<HeaderV3> = layout<HeaderV3>(HEADER_V3_BYTES - HEADER_V2_BYTES, {
  incompatible: flags64(0),
  compatible: flags64(8),
  autoclear: flags64(16),
  refcountOrder: u32(24),
  headerLength: u32(28),
});

/** Byte of the compression type, present when the header is longer than 104 bytes. */
export const COMPRESSION_TYPE_AT = 104;
/** Bytes of the incompatible (72) and autoclear (88) feature words, for in-place changes. */
export const INCOMPATIBLE_AT = 72;
export const AUTOCLEAR_AT = 88;

/** Incompatible features (low word). */
export const INCOMPATIBLE = {
  dirty: 0x01,
  corrupt: 0x02,
  externalDataFile: 0x04,
  compressionType: 0x08,
  extendedL2: 0x10,
} as const;
/** All incompatible bits with a meaning. */
export const INCOMPATIBLE_KNOWN = 0x1f;
/** Compatible features (low word). */
export const COMPATIBLE = { lazyRefcounts: 0x01 } as const;
/** Autoclear features (low word). */
export const AUTOCLEAR = { bitmaps: 0x01, rawExternalData: 0x02 } as const;

/** `crypt_method`: what encrypts guest data. */
export const CRYPT = { none: 0, aes: 1, luks: 2 } as const;
export const COMPRESSION = { deflate: 0, zstd: 1 } as const;

// ---- Header extensions -------------------------------------------------------------------------

/** Head of an extension: type and length; the data follows, padded to 8 bytes. */
export interface ExtensionHead {
  readonly type: number;
  readonly length: number;
}
export const extensionHead: Layout<ExtensionHead> = layout<ExtensionHead>(8, {
  type: u32(0),
  length: u32(4),
});
/** Extensions start on multiples of this. */
export const EXTENSION_ALIGNMENT = 8;

export const EXTENSION = {
  end: 0x0000_0000,
  backingFormat: 0xe279_2aca,
  featureNames: 0x6803_f857,
  bitmaps: 0x2385_2875,
  encryption: 0x0537_be77,
  dataFile: 0x4441_5441,
  /** Private to Downfold ("DWNF"): why the image no longer represents any point in time. Other tools preserve it. */
  mark: 0x4457_4e46,
  /** Private to Downfold ("DWN0"): room of an extension that is gone, between others. */
  unused: 0x4457_4e30,
} as const;

/** Data of the encryption extension: where the LUKS header lies, with its key material. */
export interface EncryptionExtension {
  readonly offset: number;
  readonly length: number;
}
export const encryptionExtension: Layout<EncryptionExtension> = layout<EncryptionExtension>(16, {
  offset: u64(0),
  length: u64(8),
});

/** One row of the feature name table. */
export interface FeatureName {
  readonly kind: number;
  readonly bit: number;
  readonly name: Uint8Array;
}
export const featureName: Layout<FeatureName> = layout<FeatureName>(48, {
  kind: u8(0),
  bit: u8(1),
  name: raw(2, 46),
});

/** Data of the bitmaps extension. */
export interface BitmapsExtension {
  readonly count: number;
  readonly reserved: number;
  readonly directorySize: number;
  readonly directoryOffset: number;
}
export const bitmapsExtension: Layout<BitmapsExtension> = layout<BitmapsExtension>(24, {
  count: u32(0),
  reserved: u32(4),
  directorySize: u64(8),
  directoryOffset: u64(16),
});

/** Fixed part of a bitmap directory entry; extra data and the name follow, padded to 8 bytes. */
export interface BitmapEntry {
  readonly tableOffset: number;
  readonly tableSize: number;
  readonly flags: number;
  readonly type: number;
  readonly granularityBits: number;
  readonly nameSize: number;
  readonly extraSize: number;
}
export const bitmapEntry: Layout<BitmapEntry> = layout<BitmapEntry>(24, {
  tableOffset: u64(0),
  tableSize: u32(8),
  flags: u32(12),
  type: u8(16),
  granularityBits: u8(17),
  nameSize: u16(18),
  extraSize: u32(20),
});

/** Flags of a persistent bitmap. */
export const BITMAP = { inUse: 0x01, auto: 0x02, extraCompatible: 0x04 } as const;
/** All flags with a meaning. */
export const BITMAP_KNOWN = 0x07;
/** The only type: dirty tracking. */
export const BITMAP_TYPE = 1;
/** Bitmap directory entries start on multiples of this. */
export const BITMAP_ALIGNMENT = 8;

// ---- Snapshots ---------------------------------------------------------------------------------

/** Fixed part of a snapshot table entry; extra data, id and name follow, padded to 8 bytes. */
export interface SnapshotHead {
  readonly l1TableOffset: number;
  readonly l1Size: number;
  readonly idLength: number;
  readonly nameLength: number;
  readonly seconds: number;
  readonly nanoseconds: number;
  readonly clock: Features;
  readonly stateSize: number;
  readonly extraSize: number;
}
export const snapshotHead: Layout<SnapshotHead> = layout<SnapshotHead>(40, {
  l1TableOffset: u64(0),
  l1Size: u32(8),
  idLength: u16(12),
  nameLength: u16(14),
  seconds: u32(16),
  nanoseconds: u32(20),
  clock: flags64(24) as Field<Features>,
  stateSize: u32(32),
  extraSize: u32(36),
});

/** Extra data of a snapshot as written today. */
export interface SnapshotExtra {
  readonly largeStateSize: Features;
  /** Virtual size at the time, bytes. */
  readonly diskSize: number;
  /** Instruction count; all ones: none. */
  readonly instructions: Features;
}
export const snapshotExtra: Layout<SnapshotExtra> = layout<SnapshotExtra>(24, {
  largeStateSize: flags64(0),
  diskSize: u64(8),
  instructions: flags64(16),
});
/** Without extra data, and where an instruction count is not kept. */
export const NO_INSTRUCTIONS: bigint = 2n ** 64n - 1n;
/** Snapshot table entries start on multiples of this. */
export const SNAPSHOT_ALIGNMENT = 8;

// ---- L1, L2 and refcount table entries ---------------------------------------------------------

/** Bytes of an L1, standard L2 or refcount table entry; of an extended L2 entry. */
export const ENTRY_BYTES = 8;
export const EXTENDED_ENTRY_BYTES = 16;
/** Subclusters of a cluster when L2 entries are extended. */
export const SUBCLUSTERS = 32;

/** Bits of the high word of L1 and L2 entries. */
export const HIGH_COPIED = 0x8000_0000;
export const HIGH_COMPRESSED = 0x4000_0000;
const HIGH_OFFSET = 0x00ff_ffff;
/** Bits of an offset that a number cannot hold: it is above 2^53-1. */
export const HIGH_OFFSET_LOST: number = HIGH_OFFSET & ~(HIGH_TOO_LARGE - 1);
const HIGH_L1_RESERVED = 0x7f00_0000;
export const HIGH_L2_RESERVED = 0x3f00_0000;
/** Bits of the low word: the zero flag of standard L2 entries; the offset; what must be 0. */
export const LOW_ZERO = 0x0000_0001;
const LOW_OFFSET = 0xffff_fe00;
const LOW_L1_RESERVED = 0x0000_01ff;
const LOW_L2_RESERVED = 0x0000_01fe;

/** Host offset of an L1 or standard L2 entry; -1 when it is above 2^53-1. */
export function entryOffset(high: number, low: number): number {
  const top = high & HIGH_OFFSET;
  return top >= HIGH_TOO_LARGE ? -1 : top * TWO_TO_32 + ((low & LOW_OFFSET) >>> 0);
}

/** High word of an entry that points to `offset` and owns it alone (COPIED). */
export function ownedHigh(offset: number): number {
  return (HIGH_COPIED | Math.floor(offset / TWO_TO_32)) >>> 0;
}

/** Low word of an entry that points to `offset`. */
export function offsetLow(offset: number): number {
  return (offset % TWO_TO_32) >>> 0;
}

/** Whether an L1 entry has a reserved bit set. */
export function l1Reserved(high: number, low: number): boolean {
  return (high & HIGH_L1_RESERVED) !== 0 || (low & LOW_L1_RESERVED) !== 0;
}

/** Whether a standard or extended (not compressed) L2 entry has a reserved bit set; in extended ones the zero flag is reserved. */
export function l2Reserved(high: number, low: number, extended: boolean): boolean {
  return (
    (high & HIGH_L2_RESERVED) !== 0 ||
    (low & (extended ? LOW_L2_RESERVED | LOW_ZERO : LOW_L2_RESERVED)) !== 0
  );
}

/** Host offset in a refcount table or bitmap table entry; -1 when it is above 2^53-1. */
export function tableOffset(high: number, low: number): number {
  return high >= HIGH_TOO_LARGE ? -1 : high * TWO_TO_32 + ((low & LOW_OFFSET) >>> 0);
}

/** Whether a bitmap table entry has a reserved bit set; bit 0 has a meaning only where there is no offset. */
export function bitmapReserved(high: number, low: number): boolean {
  const place = (high & HIGH_OFFSET) !== 0 || (low & LOW_OFFSET) !== 0;
  return (high & ~HIGH_OFFSET) !== 0 || (low & (place ? LOW_L1_RESERVED : LOW_L2_RESERVED)) !== 0;
}
/** Bit of the low word of a bitmap table entry without an offset: all its bits are ones. */
export const LOW_ALL_ONES = 0x0000_0001;

/** Whether a refcount table entry has a reserved bit (0 to 8) set. */
export function tableReserved(low: number): boolean {
  return (low & LOW_L1_RESERVED) !== 0;
}

/** Host offset of a compressed cluster's first byte (not aligned); -1 when it is above 2^53-1. */
export function compressedOffset(high: number, low: number, clusterBits: number): number {
  const top = high & ((1 << compressedHighBits(clusterBits)) - 1);
  return top >= HIGH_TOO_LARGE ? -1 : top * TWO_TO_32 + low;
}

/** Bytes from the first byte of a compressed cluster to the end of its last 512-byte sector. */
export function compressedBytes(high: number, low: number, clusterBits: number): number {
  const sectors = (high & (HIGH_COMPRESSED - 1)) >>> compressedHighBits(clusterBits);
  return (sectors + 1) * SECTOR_BYTES - (low & (SECTOR_BYTES - 1));
}

/** High word of the L2 entry of a compressed cluster of `bytes` bytes at `offset`; the low word is `offsetLow`. */
export function compressedHigh(offset: number, bytes: number, clusterBits: number): number {
  const sectors =
    Math.floor((offset + bytes - 1) / SECTOR_BYTES) - Math.floor(offset / SECTOR_BYTES);
  const place = Math.floor(offset / TWO_TO_32);
  return (HIGH_COMPRESSED | (sectors << compressedHighBits(clusterBits)) | place) >>> 0;
}

/** First byte of a file that a compressed cluster cannot reach. */
export function compressedLimit(clusterBits: number): number {
  return Math.min(2 ** (compressedHighBits(clusterBits) + 32), 2 ** 53);
}

/** Bits of the high word that belong to a compressed cluster's offset: x - 32, with x = 62 - (cluster_bits - 8). */
function compressedHighBits(clusterBits: number): number {
  return 62 - (clusterBits - 8) - 32;
}
