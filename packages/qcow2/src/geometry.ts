import { ENTRY_BYTES, EXTENDED_ENTRY_BYTES, SUBCLUSTERS } from './structures.ts';

/** Sizes that follow from a header; bytes unless the name says otherwise. Fixed while an image is open. */
export interface Geometry {
  readonly clusterBits: number;
  readonly clusterSize: number;
  readonly extendedL2: boolean;
  /** Unit with an allocation status of its own: a subcluster, or the cluster. */
  readonly unitSize: number;
  /** Units of a cluster: 32 or 1. */
  readonly unitsPerCluster: number;
  /** 32-bit words of one L2 entry: 4 or 2. */
  readonly entryWords: number;
  /** Entries of one L2 table. */
  readonly l2Entries: number;
  /** Guest bytes that one L2 table maps. */
  readonly l2Reach: number;
  /** Width of a refcount, in bits: 1 to 64. */
  readonly refcountBits: number;
  /** Host clusters that one refcount block counts. */
  readonly refcountsPerBlock: number;
}

/** Sizes of an image with these header fields. */
export function geometryOf(
  clusterBits: number,
  extendedL2: boolean,
  refcountOrder: number,
): Geometry {
  const clusterSize = 2 ** clusterBits;
  const entryBytes = extendedL2 ? EXTENDED_ENTRY_BYTES : ENTRY_BYTES;
  const l2Entries = clusterSize / entryBytes;
  const unitsPerCluster = extendedL2 ? SUBCLUSTERS : 1;
  const refcountBits = 2 ** refcountOrder;
  return {
    clusterBits,
    clusterSize,
    extendedL2,
    unitSize: clusterSize / unitsPerCluster,
    unitsPerCluster,
    entryWords: entryBytes / 4,
    l2Entries,
    l2Reach: l2Entries * clusterSize,
    refcountBits,
    refcountsPerBlock: (clusterSize * 8) / refcountBits,
  };
}
