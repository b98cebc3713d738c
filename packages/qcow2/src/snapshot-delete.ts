import { BARRIER } from './barriers.ts';
import { flushImage } from './flush.ts';
import { writeFresh } from './fresh-metadata.ts';
import { patchHeader } from './header-sector.ts';
import { reclaimLeaks } from './reclaim.ts';
import { entriesOf } from './snapshot-table.ts';
import { readSnapshots, snapshotNamed } from './snapshots.ts';
import type { Qcow2State } from './state.ts';

/**
 * Deletes an internal snapshot: one write of the header's first sector names a table without it (W11), and only then what it alone
 * held is given back (W5). A crash in between leaves leaks; one while copied flags are set again leaves refcounts that are too high
 * beside them. `reclaimLeaks` lowers both. Durable when it resolves. To be run in the mutation queue.
 * @throws ImageError `IMAGE_CORRUPT`, before anything is written, when the check finds more than leaks
 */
export async function deleteSnapshot(state: Qcow2State, id: string): Promise<void> {
  // what is counted wrongly now would be given back, or kept, wrongly then
  await reclaimLeaks(state);
  const snapshots = await readSnapshots(state);
  const gone = snapshotNamed(state, snapshots, id);
  const left = snapshots.filter((snapshot) => snapshot !== gone);
  const table = Buffer.concat(await entriesOf(state, left));
  const snapshotsOffset = left.length === 0 ? 0 : await writeFresh(state, 'snapshot table', table);
  await flushImage(state);
  const fields = { nbSnapshots: left.length, snapshotsOffset };
  await patchHeader(state, fields, BARRIER.snapshotTable);
  await reclaimLeaks(state);
}
