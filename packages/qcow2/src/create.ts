import type { CreateImageOptions, ImageLimits } from '@downfold/image';
import type { ImageEncryption } from '@downfold/luks';
import type { Storage } from '@downfold/storage';
import { alignUp, type ByteLength, hostOffset, isPowerOfTwo } from '@downfold/units';
import { BARRIER } from './barriers.ts';
import { imageError } from './corrupt.ts';
import { loadLuks } from './encryption.ts';
import { encodeExtension } from './extensions.ts';
import { type Geometry, geometryOf } from './geometry.ts';
import { HARD_LIMITS } from './limits.ts';
import { assertCanPreallocate, type Preallocation } from './preallocate.ts';
import { isRefcountWidth, setRefcount } from './refcount-codec.ts';
import {
  AUTOCLEAR,
  COMPATIBLE,
  COMPRESSION,
  COMPRESSION_TYPE_AT,
  CRYPT,
  ENTRY_BYTES,
  type EncryptionExtension,
  EXTENSION,
  encryptionExtension,
  extensionHead,
  HEADER_FULL_BYTES,
  HEADER_V2_BYTES,
  headerV2,
  headerV3,
  INCOMPATIBLE,
  MAGIC,
  SECTOR_BYTES,
} from './structures.ts';

/** Options of a new qcow2 image. */
export interface Qcow2CreateOptions extends CreateImageOptions {
  /** What the new image is held to, as when it is opened. */
  readonly limits?: Partial<ImageLimits>;
  /** Bytes: a power of two, 512 to 2 MiB. Default 64 KiB. */
  readonly clusterSize?: number;
  /** 2 (`compat=0.10`) or 3 (`compat=1.1`). Default 3. */
  readonly version?: 2 | 3;
  /** Width of refcounts: 1, 2, 4, 8, 16, 32 or 64. Default 16; version 2 has no other. */
  readonly refcountBits?: number;
  /** Subclusters: clusters of at least 16 KiB, version 3. Default false. */
  readonly extendedL2?: boolean;
  /** Allows QEMU to postpone refcounts; Downfold never does. Version 3. Default false. */
  readonly lazyRefcounts?: boolean;
  /** What QEMU compresses with when it is told to. Default deflate; zstd needs version 3. */
  readonly compression?: 'deflate' | 'zstd';
  /** With a backing file only where L2 entries are extended. Default off. */
  readonly preallocation?: Preallocation;
  /**
   * Keeps guest data in this empty file, which the image owns then; `name`: how the image calls it. `raw`: the file alone always reads as the
   * disk does; no backing file then. Version 3.
   */
  readonly dataFile?: { readonly name: string; readonly raw: boolean; readonly storage: Storage };
  /** Encrypts guest data; no raw data file then, and nothing is compressed. */
  readonly encryption?: ImageEncryption;
}

/** Bytes kept free between the extensions and the backing name, for a mark. */
const ROOM_FOR_MARK = 112;

/** Clusters of a new image, in order: header, refcount table, refcount blocks, L1 table, encryption header. */
interface Clusters {
  readonly table: number;
  readonly blocks: number;
  readonly l1: number;
  readonly l1Size: number;
  readonly encryption: number;
}

/** Writes an empty image onto empty storage; durable when it resolves. */
export async function createImage(storage: Storage, options: Qcow2CreateOptions): Promise<void> {
  options.signal?.throwIfAborted();
  const geometry = geometryOfNew(storage.label, options);
  const made =
    options.encryption === undefined
      ? null
      : await (await loadLuks()).makeImageHeader(storage.label, options.encryption);
  const clusters = layOut(geometry, options.virtualSize, made?.bytes.length ?? 0);
  if (clusters.l1Size * ENTRY_BYTES > HARD_LIMITS.l1Table)
    throw imageError(
      'IMAGE_LIMIT',
      storage.label,
      'the virtual size needs an L1 table above 32 MiB; use larger clusters',
    );
  const { clusterSize } = geometry;
  const total = totalOf(clusters);
  const encryptionAt = (total - clusters.encryption) * clusterSize;
  const metadata = new Uint8Array((1 + clusters.table + clusters.blocks) * clusterSize);
  encodeHeader(
    storage.label,
    metadata.subarray(0, clusterSize),
    options,
    geometry,
    clusters,
    made === null ? null : { offset: encryptionAt, length: made.bytes.length },
  );
  const view = new DataView(metadata.buffer);
  for (let block = 0; block < clusters.blocks; block++) {
    const offset = (1 + clusters.table + block) * clusterSize;
    view.setUint32(clusterSize + ENTRY_BYTES * block + 4, offset);
    const used = Math.min(geometry.refcountsPerBlock, total - block * geometry.refcountsPerBlock);
    const bytes = metadata.subarray(offset, offset + clusterSize);
    for (let index = 0; index < used; index++) setRefcount(bytes, index, geometry.refcountBits, 1);
  }
  await storage.write(hostOffset(SECTOR_BYTES), metadata.subarray(SECTOR_BYTES), {
    what: 'metadata',
  });
  await storage.writeZeroes(
    {
      offset: hostOffset(metadata.length),
      length: (total * clusterSize - metadata.length) as ByteLength,
    },
    { what: 'L1 table' },
  );
  if (made !== null)
    await storage.write(hostOffset(encryptionAt), made.bytes, { what: 'encryption header' });
  // a crash leaves a whole image, or what is none
  await storage.flush(BARRIER.createContent);
  await storage.write(hostOffset(0), metadata.subarray(0, SECTOR_BYTES), { what: 'header' });
  await storage.flush(BARRIER.create);
}

/** Sizes of an image that is made with `options`. @throws ImageError `IMAGE_UNSUPPORTED` for options that no image can have */
export function geometryOfNew(label: string, options: Qcow2CreateOptions): Geometry {
  const clusterSize = options.clusterSize ?? 65_536;
  const refcountBits = options.refcountBits ?? 16;
  const bits = Math.log2(clusterSize);
  const refuse = (problem: string): never => {
    throw imageError('IMAGE_UNSUPPORTED', label, problem, undefined, { feature: problem });
  };
  if (
    !isPowerOfTwo(clusterSize) ||
    bits < HARD_LIMITS.clusterBitsLeast ||
    bits > HARD_LIMITS.clusterBitsMost
  )
    refuse(`clusters of ${clusterSize} bytes; allowed are powers of two from 512 to 2 MiB`);
  if (!isRefcountWidth(refcountBits))
    refuse(`refcounts of ${refcountBits} bits; allowed are 1, 2, 4, 8, 16, 32 and 64`);
  if (options.extendedL2 && bits < HARD_LIMITS.extendedL2ClusterBitsLeast)
    refuse('extended L2 entries with clusters below 16 KiB');
  assertCanPreallocate(label, options.preallocation ?? 'off', {
    backed: options.backing != null,
    extendedL2: options.extendedL2 ?? false,
  });
  const needs3 =
    options.extendedL2 ||
    options.lazyRefcounts ||
    refcountBits !== 16 ||
    options.compression === 'zstd' ||
    options.dataFile !== undefined;
  if (options.dataFile?.raw && options.backing != null)
    refuse('a raw external data file and a backing file');
  if (options.dataFile?.raw && options.encryption !== undefined)
    refuse('a raw external data file that is encrypted');
  if (options.dataFile?.name === '') refuse('an external data file without a name');
  if (options.version === 2 && needs3)
    refuse(
      'extended L2 entries, lazy refcounts, zstd, an external data file or refcounts other than 16 bits in a version 2 image',
    );
  return geometryOf(bits, options.extendedL2 ?? false, Math.log2(refcountBits));
}

function layOut(geometry: Geometry, virtualSize: number, encryptionBytes: number): Clusters {
  const { clusterSize, refcountsPerBlock, l2Reach } = geometry;
  const l1Size = Math.max(1, Math.ceil(virtualSize / l2Reach));
  const l1 = Math.ceil((l1Size * ENTRY_BYTES) / clusterSize);
  const encryption = Math.ceil(encryptionBytes / clusterSize);
  let [table, blocks] = [1, 1];
  while (
    1 + table + blocks + l1 + encryption > blocks * refcountsPerBlock ||
    blocks * ENTRY_BYTES > table * clusterSize
  ) {
    if (blocks * ENTRY_BYTES >= table * clusterSize) table++;
    else blocks++;
  }
  return { table, blocks, l1, l1Size, encryption };
}

function totalOf({ table, blocks, l1, encryption }: Clusters): number {
  return 1 + table + blocks + l1 + encryption;
}

function extensionsOf(
  { backing, dataFile }: Qcow2CreateOptions,
  encryption: EncryptionExtension | null,
): readonly Uint8Array[] {
  const text = new TextEncoder();
  const parts: Uint8Array[] = [];
  if (backing?.format != null)
    parts.push(encodeExtension(EXTENSION.backingFormat, text.encode(backing.format)));
  if (dataFile !== undefined)
    parts.push(encodeExtension(EXTENSION.dataFile, text.encode(dataFile.name)));
  if (encryption !== null) {
    const data = new Uint8Array(encryptionExtension.size);
    encryptionExtension.encode(encryption, data);
    parts.push(encodeExtension(EXTENSION.encryption, data));
  }
  return parts;
}

function encodeHeader(
  label: string,
  cluster: Uint8Array,
  options: Qcow2CreateOptions,
  geometry: Geometry,
  clusters: Clusters,
  encryption: EncryptionExtension | null,
): void {
  const version = options.version ?? 3;
  const zstd = options.compression === 'zstd';
  let at = version === 2 ? HEADER_V2_BYTES : HEADER_FULL_BYTES;
  const name = new TextEncoder().encode(options.backing?.name ?? '');
  const parts = extensionsOf(options, encryption);
  const areaEnd = at + parts.reduce((sum, part) => sum + part.length, extensionHead.size);
  const nameAt =
    areaEnd + ROOM_FOR_MARK + name.length <= cluster.length ? areaEnd + ROOM_FOR_MARK : areaEnd;
  if (nameAt + name.length > cluster.length || name.length > HARD_LIMITS.backingName)
    throw imageError(
      'IMAGE_NO_ROOM',
      label,
      `backing file name of ${name.length} bytes does not fit the header`,
    );
  headerV2.encode(
    {
      magic: MAGIC,
      version,
      backingFileOffset: name.length > 0 ? nameAt : 0,
      backingFileSize: name.length,
      clusterBits: geometry.clusterBits,
      size: alignUp(options.virtualSize, SECTOR_BYTES),
      cryptMethod: encryption === null ? CRYPT.none : CRYPT.luks,
      l1Size: clusters.l1Size,
      l1TableOffset: (1 + clusters.table + clusters.blocks) * geometry.clusterSize,
      refcountTableOffset: geometry.clusterSize,
      refcountTableClusters: clusters.table,
      nbSnapshots: 0,
      snapshotsOffset: 0,
    },
    cluster,
  );
  if (version === 3) {
    headerV3.encode(
      {
        incompatible: [
          0,
          (geometry.extendedL2 ? INCOMPATIBLE.extendedL2 : 0) |
            (zstd ? INCOMPATIBLE.compressionType : 0) |
            (options.dataFile === undefined ? 0 : INCOMPATIBLE.externalDataFile),
        ],
        compatible: [0, options.lazyRefcounts ? COMPATIBLE.lazyRefcounts : 0],
        autoclear: [0, options.dataFile?.raw ? AUTOCLEAR.rawExternalData : 0],
        refcountOrder: Math.log2(geometry.refcountBits),
        headerLength: HEADER_FULL_BYTES,
      },
      cluster,
      HEADER_V2_BYTES,
    );
    cluster[COMPRESSION_TYPE_AT] = zstd ? COMPRESSION.zstd : COMPRESSION.deflate;
  }
  for (const part of parts) {
    cluster.set(part, at);
    at += part.length;
  }
  cluster.set(name, nameAt);
}
