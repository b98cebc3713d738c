import { headerAreaBytes } from '@downfold/luks';
import { geometryOfNew } from '@downfold/qcow2';
import { alignUp, byteLength, ceilDivide } from '@downfold/units';
import type { Settings } from '../create-settings.ts';
import { UsageError } from '../failure.ts';
import { cipherFor } from '../new-encryption.ts';
import { createOptions, newFormatOf } from '../new-image.ts';

/** What the size of a qcow2 image's metadata depends on. */
export interface Qcow2Shape {
  /** Bytes. */
  readonly clusterSize: number;
  readonly refcountBits: number;
  readonly extendedL2: boolean;
  /** Bytes of the encryption header; 0: there is none. */
  readonly encryptionBytes: number;
}

/** The shape that `-o` says. @throws what `create` would refuse it with */
export function qcow2Shape(settings: Settings): Qcow2Shape {
  const none = { virtualSize: byteLength(0), backing: null };
  const encrypted = settings['encrypt.format'] !== undefined;
  return {
    ...geometryOfNew('measured', createOptions(newFormatOf('qcow2'), settings, none)),
    encryptionBytes: encrypted ? headerAreaBytes(cipherFor(settings, 'encrypt.')) : 0,
  };
}

const ENTRY_BYTES = 8;
const EXTENDED_ENTRY_BYTES = 16;
/** As QEMU's. */
const LONGEST_L1_BYTES = 32 << 20;

/**
 * Bytes of metadata of an image all of whose clusters are allocated: header, L1 and L2 tables, encryption header, refcount table and blocks.
 * @param size of the disk, a multiple of the cluster size
 */
export function metadataBytes(shape: Qcow2Shape, size: number): number {
  const { clusterSize } = shape;
  const { l1, l2 } = tableBytes(shape, size);
  const counted = clusterSize + l2 + l1 + alignUp(shape.encryptionBytes, clusterSize);
  return counted + refcountBytes(shape, (counted + size) / clusterSize);
}

/** @throws UsageError when no L1 table may be as large as a disk of `size` bytes needs it */
export function assertPossibleSize(shape: Qcow2Shape, size: number): void {
  if (tableBytes(shape, alignUp(size, shape.clusterSize)).l1 <= LONGEST_L1_BYTES) return;
  throw new UsageError('The image size is too large (try using a larger cluster size)');
}

/** Bytes of the L1 table and of all L2 tables. */
function tableBytes(
  { clusterSize, extendedL2 }: Qcow2Shape,
  size: number,
): { readonly l1: number; readonly l2: number } {
  const entry = extendedL2 ? EXTENDED_ENTRY_BYTES : ENTRY_BYTES;
  const l2 = alignUp((size / clusterSize) * entry, clusterSize);
  return { l1: alignUp((l2 / clusterSize) * ENTRY_BYTES, clusterSize), l2 };
}

/** Bytes of refcount table and blocks that count so many clusters, and themselves. */
function refcountBytes({ clusterSize, refcountBits }: Qcow2Shape, clusters: number): number {
  const countsPerBlock = (clusterSize * 8) / refcountBits;
  const blocksPerTableCluster = clusterSize / ENTRY_BYTES;
  let [blocks, table] = [0, 0];
  for (let last = -1; last !== blocks + table; ) {
    last = blocks + table;
    blocks = ceilDivide(clusters + blocks + table, countsPerBlock);
    table = ceilDivide(blocks, blocksPerTableCluster);
  }
  return (blocks + table) * clusterSize;
}
