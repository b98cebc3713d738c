import type { BitmapDirectory } from './bitmaps.ts';
import { metadataMap, protect } from './overlap.ts';
import { openRefcounts } from './refcounts.ts';
import { readSnapshots, snapshotTableBytes } from './snapshots.ts';
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
