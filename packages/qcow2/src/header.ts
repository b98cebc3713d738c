import type { BackingReference, ImageLimits, ImageMark } from '@downfold/image';
import { alignDown, alignUp } from '@downfold/units';
import { corrupt, decoding, imageError } from './corrupt.ts';
import { type ExtensionArea, featureLabel, findExtension, parseExtensions } from './extensions.ts';
import { type Geometry, geometryOf } from './geometry.ts';
import { HARD_LIMITS, SAFE_LIMITS } from './limits.ts';
import { parseMark } from './mark-text.ts';
import {
  AUTOCLEAR,
  COMPRESSION,
  COMPRESSION_TYPE_AT,
  CRYPT,
  ENTRY_BYTES,
  type EncryptionExtension,
  EXTENSION,
  encryptionExtension,
  HEADER_V2_BYTES,
  HEADER_V3_BYTES,
  type HeaderV2,
  type HeaderV3,
  headerV2,
  headerV3,
  INCOMPATIBLE,
  INCOMPATIBLE_KNOWN,
  MAGIC,
  SECTOR_BYTES,
} from './structures.ts';

/** What an image says of its external data file. */
interface DataFileReference {
  /** As stored; relative names are relative to the directory of the image. */
  readonly name: string;
  /** The data file alone reads as the disk does. */
  readonly raw: boolean;
}

/** A checked header: what it says, and its bytes for changes in place. */
export interface Header extends HeaderV2, HeaderV3 {
  readonly compressionType: number;
  readonly area: ExtensionArea;
  readonly backing: BackingReference | null;
  /** Where guest data is kept; null: in the image's own file. */
  readonly dataFile: DataFileReference | null;
  readonly mark: ImageMark | null;
  /** Where the LUKS header lies; null: guest data is not encrypted. */
  readonly encryption: EncryptionExtension | null;
}

const V2_DEFAULTS: HeaderV3 = {
  incompatible: [0, 0],
  compatible: [0, 0],
  autoclear: [0, 0],
  refcountOrder: 4,
  headerLength: HEADER_V2_BYTES,
};

/** Whether a file that starts with `head` claims to be qcow2. */
export function hasMagic(head: Uint8Array): boolean {
  return head.length >= 8 && new DataView(head.buffer, head.byteOffset).getUint32(0) === MAGIC;
}

/**
 * The cluster size that a header claims, in bytes: how much of the file is the header cluster.
 * @throws ImageError `IMAGE_NOT_RECOGNISED`, `IMAGE_UNSUPPORTED` (version) or `IMAGE_CORRUPT`.
 */
export function claimedClusterSize(label: string, head: Uint8Array, fileLength: number): number {
  if (!hasMagic(head)) throw imageError('IMAGE_NOT_RECOGNISED', label, 'is not a qcow2 image', 0);
  if (fileLength < HEADER_V2_BYTES) throw corrupt(label, 'ends inside the header', fileLength);
  const view = new DataView(head.buffer, head.byteOffset);
  const [version, bits] = [view.getUint32(4), view.getUint32(20)];
  if (version !== 2 && version !== 3)
    throw imageError('IMAGE_UNSUPPORTED', label, `qcow2 version ${version}`, 4, {
      feature: `version ${version}`,
    });
  if (bits < HARD_LIMITS.clusterBitsLeast || bits > HARD_LIMITS.clusterBitsMost)
    throw corrupt(label, `cluster_bits is ${bits}, allowed are 9 to 21`, 20);
  return 2 ** bits;
}

/**
 * Reads and checks a header from the whole header cluster.
 * @throws ImageError for everything that QEMU refuses, and for what `limits` refuse.
 */
export function parseHeader(
  label: string,
  cluster: Uint8Array,
  fileLength: number,
  limits: ImageLimits,
): Header {
  const fixed = decodeFixed(label, cluster);
  if (fixed.version === 3 && fixed.headerLength > cluster.length)
    throw corrupt(label, `header_length ${fixed.headerLength} exceeds the cluster`, 100);
  if (fixed.headerLength < (fixed.version === 2 ? HEADER_V2_BYTES : HEADER_V3_BYTES))
    throw corrupt(label, `header_length ${fixed.headerLength} is below 104`, 100);
  if (fixed.refcountOrder > HARD_LIMITS.refcountOrderMost)
    throw corrupt(label, `refcount_order ${fixed.refcountOrder} is above 6`, 96);
  assertBackingPlace(label, fixed, cluster.length);
  const limit = fixed.backingFileOffset || cluster.length;
  const area = parseExtensions(label, cluster, fixed.headerLength, limit);
  const compressionType =
    fixed.headerLength > COMPRESSION_TYPE_AT ? (cluster[COMPRESSION_TYPE_AT] as number) : 0;
  assertFeatures(label, fixed, compressionType, area);
  const geometry = geometryOf(
    fixed.clusterBits,
    (fixed.incompatible[1] & INCOMPATIBLE.extendedL2) !== 0,
    fixed.refcountOrder,
  );
  assertTables(label, fixed, geometry, fileLength, limits);
  return {
    ...fixed,
    // as QEMU: the part of a sector at the end is not the guest's
    size: alignDown(fixed.size, SECTOR_BYTES),
    compressionType,
    area,
    backing: backingOf(label, fixed, cluster, area),
    dataFile: dataFileOf(label, fixed, area),
    mark: parseMark(findExtension(area, EXTENSION.mark)?.data),
    encryption: encryptionOf(label, fixed, area, fileLength),
  };
}

function decodeFixed(label: string, cluster: Uint8Array): HeaderV2 & HeaderV3 {
  return decoding(label, 'header', 0, () => {
    const v2 = headerV2.decode(cluster);
    if (v2.version === 2) return { ...v2, ...V2_DEFAULTS };
    return { ...v2, ...headerV3.decode(cluster, HEADER_V2_BYTES) };
  });
}

function assertBackingPlace(label: string, header: HeaderV2 & HeaderV3, clusterSize: number): void {
  const { backingFileOffset: at, backingFileSize: size } = header;
  if (at === 0) return;
  if (at > clusterSize || at < header.headerLength)
    throw corrupt(label, `backing file name lies at ${at}, outside the header cluster`, 8);
  if (size > Math.min(HARD_LIMITS.backingName, clusterSize - at))
    throw corrupt(label, `backing file name of ${size} bytes is too long`, 16);
}

function assertFeatures(
  label: string,
  header: HeaderV2 & HeaderV3,
  compressionType: number,
  area: ExtensionArea,
): void {
  const refuse = (feature: string, at: number): never => {
    throw imageError(
      'IMAGE_UNSUPPORTED',
      label,
      `uses ${feature}, which Downfold does not read`,
      at,
      {
        feature,
      },
    );
  };
  const [high, low] = header.incompatible;
  for (let bit = 0; bit < 64; bit++) {
    const word = bit < 32 ? low & ~INCOMPATIBLE_KNOWN : high;
    if (((word >>> (bit % 32)) & 1) === 1) refuse(featureLabel(area, bit), 72);
  }
  if (header.cryptMethod === CRYPT.aes) refuse('legacy AES encryption', 32);
  if (header.cryptMethod > CRYPT.luks) refuse(`encryption method ${header.cryptMethod}`, 32);
  if (((low & INCOMPATIBLE.compressionType) !== 0) !== (compressionType !== COMPRESSION.deflate))
    throw corrupt(label, 'compression type and its feature bit disagree', COMPRESSION_TYPE_AT);
  if (compressionType > COMPRESSION.zstd)
    refuse(`compression type ${compressionType}`, COMPRESSION_TYPE_AT);
  const external = (low & INCOMPATIBLE.externalDataFile) !== 0;
  if (header.autoclear[1] & AUTOCLEAR.rawExternalData && !external)
    throw corrupt(label, 'raw external data is claimed without an external data file', 88);
  if (low & INCOMPATIBLE.extendedL2 && header.clusterBits < HARD_LIMITS.extendedL2ClusterBitsLeast)
    throw corrupt(label, 'extended L2 entries need clusters of at least 16 KiB', 20);
}

function assertTables(
  label: string,
  header: HeaderV2,
  geometry: Geometry,
  fileLength: number,
  limits: ImageLimits,
): void {
  if (header.size > limits.virtualSize)
    throw imageError(
      'IMAGE_LIMIT',
      label,
      `virtual size ${header.size} is above the limit of ${limits.virtualSize} bytes`,
      24,
      { limit: limits.virtualSize, found: header.size },
    );
  const l1Bytes = header.l1Size * ENTRY_BYTES;
  if (l1Bytes > HARD_LIMITS.l1Table)
    throw imageError('IMAGE_LIMIT', label, `L1 table of ${l1Bytes} bytes is above 32 MiB`, 36, {
      limit: HARD_LIMITS.l1Table,
      found: l1Bytes,
    });
  if (header.l1Size < Math.ceil(header.size / geometry.l2Reach))
    throw corrupt(
      label,
      `L1 table of ${header.l1Size} entries is too small for the virtual size`,
      36,
    );
  const onCluster = (what: string, at: number, field: number): void => {
    if (at === 0 || at % geometry.clusterSize !== 0)
      throw corrupt(label, `${what} at ${at} is not on a cluster of its own`, field);
  };
  const inFile = (what: string, at: number, bytes: number, field: number): void => {
    if (bytes === 0) return;
    onCluster(what, at, field);
    if (at + bytes > Math.ceil(fileLength / geometry.clusterSize) * geometry.clusterSize)
      throw corrupt(label, `${what} at ${at} reaches past the end of the file`, field);
  };
  inFile('L1 table', header.l1TableOffset, l1Bytes, 40);
  const reftableBytes = header.refcountTableClusters * geometry.clusterSize;
  if (header.refcountTableClusters === 0) throw corrupt(label, 'there is no refcount table', 56);
  if (reftableBytes > HARD_LIMITS.refcountTable)
    throw imageError(
      'IMAGE_LIMIT',
      label,
      `refcount table of ${reftableBytes} bytes is above 8 MiB`,
      56,
      { limit: HARD_LIMITS.refcountTable, found: reftableBytes },
    );
  // it may be lost with the end of the file: nobody who reads needs it, a check tells, and a repair builds it anew
  onCluster('refcount table', header.refcountTableOffset, 48);
  if (header.nbSnapshots > SAFE_LIMITS.snapshots)
    throw imageError(
      'IMAGE_LIMIT',
      label,
      `${header.nbSnapshots} snapshots are above the limit of ${SAFE_LIMITS.snapshots}`,
      60,
      { limit: SAFE_LIMITS.snapshots, found: header.nbSnapshots },
    );
  if (header.snapshotsOffset % geometry.clusterSize !== 0)
    throw corrupt(label, `snapshot table at ${header.snapshotsOffset} is not on a cluster`, 64);
  inFile('snapshot table', header.snapshotsOffset, header.nbSnapshots, 64);
}

function backingOf(
  label: string,
  header: HeaderV2 & HeaderV3,
  cluster: Uint8Array,
  area: ExtensionArea,
): BackingReference | null {
  if (header.backingFileOffset === 0 || header.backingFileSize === 0) return null;
  const at = header.backingFileOffset;
  const format = findExtension(area, EXTENSION.backingFormat)?.data;
  if (format !== undefined && format.length > HARD_LIMITS.backingFormat)
    throw corrupt(label, `backing format of ${format.length} bytes`, header.headerLength);
  return {
    name: utf8(label, cluster.subarray(at, at + header.backingFileSize), at),
    format:
      format === undefined || format.length === 0 ? null : utf8(label, format, header.headerLength),
  };
}

function dataFileOf(
  label: string,
  header: HeaderV2 & HeaderV3,
  area: ExtensionArea,
): DataFileReference | null {
  if ((header.incompatible[1] & INCOMPATIBLE.externalDataFile) === 0) return null;
  const raw = (header.autoclear[1] & AUTOCLEAR.rawExternalData) !== 0;
  const extension = findExtension(area, EXTENSION.dataFile);
  const feature = 'external data file without a name';
  if (extension === undefined || extension.data.length === 0)
    throw imageError('IMAGE_UNSUPPORTED', label, `uses an ${feature}`, 72, { feature });
  if (raw && header.backingFileOffset !== 0)
    throw corrupt(label, 'a raw external data file and a backing file', 88);
  return { name: utf8(label, extension.data, extension.at), raw };
}

function encryptionOf(
  label: string,
  header: HeaderV2 & HeaderV3,
  area: ExtensionArea,
  fileLength: number,
): EncryptionExtension | null {
  const extension = findExtension(area, EXTENSION.encryption);
  const encrypted = header.cryptMethod === CRYPT.luks;
  if (encrypted !== (extension !== undefined))
    throw corrupt(label, 'encryption method and encryption header disagree', 32);
  if (extension === undefined) return null;
  const { at, data } = extension;
  if (data.length !== encryptionExtension.size)
    throw corrupt(label, `encryption extension of ${data.length} bytes, expected 16`, at);
  const place = decoding(label, 'encryption extension', at, () => encryptionExtension.decode(data));
  const clusterSize = 2 ** header.clusterBits;
  if (place.length > HARD_LIMITS.encryptionHeader)
    throw imageError(
      'IMAGE_LIMIT',
      label,
      `encryption header of ${place.length} bytes is above 16 MiB`,
      at,
      { limit: HARD_LIMITS.encryptionHeader, found: place.length },
    );
  if (place.offset === 0 || place.offset % clusterSize !== 0)
    throw corrupt(label, `encryption header at ${place.offset} is not on a cluster of its own`, at);
  if (place.offset + place.length > alignUp(fileLength, clusterSize))
    throw corrupt(
      label,
      `encryption header at ${place.offset} reaches past the end of the file`,
      at,
    );
  if ((header.autoclear[1] & AUTOCLEAR.rawExternalData) !== 0) {
    const feature = 'raw external data file that is encrypted';
    throw imageError('IMAGE_UNSUPPORTED', label, feature, at, { feature });
  }
  return place;
}

function utf8(label: string, bytes: Uint8Array, at: number): string {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch (cause) {
    const feature = 'file name that is not UTF-8';
    throw imageError('IMAGE_UNSUPPORTED', label, feature, at, { feature }, cause);
  }
}
