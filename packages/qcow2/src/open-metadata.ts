import type { BitmapDirectory } from './bitmaps.ts';
import { imageError } from './corrupt.ts';
import { SAFE_LIMITS } from './limits.ts';
import { metadataMap, protect } from './overlap.ts';
import { openRefcounts } from './refcounts.ts';
import { readSnapshots, type Snapshot, snapshotTableBytes } from './snapshots.ts';
import type { Qcow2State, Writer } from './state.ts';
import { ENTRY_BYTES } from './structures.ts';

/** The refcounts as the file has them, and where metadata lies in it that a writer must not hit (W13). `directory`: of the bitmaps. */
export async function metadataOf(
  state: Qcow2State,
  directory: BitmapDirectory | null,
): Promise<Pick<Writer, 'refcounts' | 'metadata'>> {
  const refcounts = await openRefcounts(state);
  const metadata = metadataMap(state, refcounts.table);
  const snapshots = await readSnapshots(state);
  assertFewClusters(state, snapshots);
  const tableBytes = snapshotTableBytes(snapshots);
  protect(metadata, state, 'snapshot table', state.header.snapshotsOffset, tableBytes);
  for (const { l1TableOffset, l1Size } of snapshots)
    protect(metadata, state, 'L1 table', l1TableOffset, l1Size * ENTRY_BYTES);
  const { encryption } = state.header;
  if (encryption !== null)
    protect(metadata, state, 'encryption header', encryption.offset, encryption.length);
  if (directory !== null)
    protect(metadata, state, 'bitmap directory', directory.offset, directory.length);
  return { refcounts, metadata };
}

function assertFewClusters({ geometry, label }: Qcow2State, snapshots: readonly Snapshot[]): void {
  const limit = SAFE_LIMITS.snapshotL1Clusters;
  const clusters = ({ l1Size }: Snapshot): number =>
    Math.ceil((l1Size * ENTRY_BYTES) / geometry.clusterSize);
  const found = snapshots.reduce((sum, snapshot) => sum + clusters(snapshot), 0);
  if (found <= limit) return;
  const problem = `the L1 tables of its snapshots have ${found} clusters, more than ${limit}`;
  throw imageError('IMAGE_LIMIT', label, problem, undefined, { limit, found });
}
