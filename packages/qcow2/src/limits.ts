const KIB = 1024;
const MIB = 1_048_576;

/** Hard limits of the format and of QEMU; images beyond them are refused as QEMU refuses them. */
export const HARD_LIMITS: Readonly<
  Record<
    | 'clusterBitsLeast'
    | 'clusterBitsMost'
    | 'refcountOrderMost'
    | 'l1Table'
    | 'refcountTable'
    | 'backingName'
    | 'backingFormat'
    | 'snapshotTable'
    | 'snapshotExtra'
    | 'extendedL2ClusterBitsLeast'
    | 'encryptionHeader',
    number
  >
> = {
  clusterBitsLeast: 9,
  clusterBitsMost: 21,
  refcountOrderMost: 6,
  /** Bytes. */
  l1Table: 32 * MIB,
  refcountTable: 8 * MIB,
  backingName: 1023,
  backingFormat: 15,
  snapshotTable: 64 * MIB,
  snapshotExtra: KIB,
  /** Extended L2 entries need subclusters of at least 512 bytes. */
  extendedL2ClusterBitsLeast: 14,
  /** Bytes; those of eight slots of the largest keys are two MiB. */
  encryptionHeader: 16 * MIB,
};

/** Lower limits against hostile images (facts: a header may claim 65,536 snapshots in a sparse file). */
export const SAFE_LIMITS: Readonly<
  Record<
    | 'snapshots'
    | 'snapshotL1Clusters'
    | 'bitmaps'
    | 'bitmapDirectory'
    | 'bitmapTable'
    | 'l2Tables'
    | 'countedBytes',
    number
  >
> = {
  snapshots: 1024,
  /** Of all snapshots together, for writers, who keep each in mind: 128 MiB of L1 tables in clusters of 512 bytes. */
  snapshotL1Clusters: 262_144,
  bitmaps: 256,
  /** Bytes. */
  bitmapDirectory: MIB,
  bitmapTable: 8 * MIB,
  /** References from all L1 tables to L2 tables, in a check. */
  l2Tables: 8 * MIB,
  /** Bytes for the references to host clusters in a check, two a cluster: 32 TiB of 64 KiB clusters. */
  countedBytes: 1024 * MIB,
};
