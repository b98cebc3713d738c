import type { OperationOptions } from '@downfold/storage';
import { alignUp, hostOffset } from '@downfold/units';
import { release } from './allocate.ts';
import { disclaim } from './autoclear.ts';
import { BARRIER } from './barriers.ts';
import { readBitmaps } from './bitmaps.ts';
import { checkImage } from './check.ts';
import { flushImage } from './flush.ts';
import { writeFresh } from './fresh-metadata.ts';
import { patchHeader } from './header-sector.ts';
import { HARD_LIMITS } from './limits.ts';
import { metadataOf } from './open-metadata.ts';
import { damagesOf } from './snapshot-damages.ts';
import { readSnapshots, type Snapshot, snapshotTableBytes } from './snapshots.ts';
import type { Qcow2State } from './state.ts';
import { ENTRY_BYTES, SNAPSHOT_ALIGNMENT, snapshotExtra, snapshotHead } from './structures.ts';
import { writerOf } from './writer.ts';

/**
 * Has the header count no snapshots that lie behind the longest table that anybody reads, durably. Before anything else is repaired: what only they
 * referred to is then leaked (W5).
 */
export async function dropSnapshotsBeyond(state: Qcow2State): Promise<void> {
  const { length: nbSnapshots } = await readSnapshots(state);
  if (nbSnapshots === state.header.nbSnapshots) return;
  await disclaim(state, 'header');
  await patchHeader(state, { nbSnapshots }, BARRIER.snapshotTable);
}

/** Mends the entries of the snapshot table, where nothing else is wrong any more: it takes clusters, which must be counted rightly. */
export async function mendSnapshots(state: Qcow2State, options: OperationOptions): Promise<void> {
  const snapshots = await readSnapshots(state);
  const damages = damagesOf(state, snapshots);
  if (damages.length === 0) return;
  const { corruptions } = await checkImage(state, options);
  if (corruptions === damages.length) await rewrite(state, snapshots);
}

/**
 * Has every entry say what it lacks, as QEMU's repair does: the present size of the disk, the size of the machine's state, and that no instructions
 * were counted; and takes extra data above the limit away. A new table is durable before one write of the header's first sector names it (W11); only
 * then the old one is given back (W5).
 */
async function rewrite(state: Qcow2State, snapshots: readonly Snapshot[]): Promise<void> {
  const old = { offset: state.header.snapshotsOffset, length: snapshotTableBytes(snapshots) };
  const table: Uint8Array[] = [];
  for (const snapshot of snapshots) table.push(await mended(state, snapshot));
  await disclaim(state, 'header');
  Object.assign(writerOf(state), await metadataOf(state, await readBitmaps(state)));
  const snapshotsOffset = await writeFresh(state, 'snapshot table', Buffer.concat(table));
  await flushImage(state);
  await patchHeader(state, { snapshotsOffset }, BARRIER.snapshotTable);
  release(state, old.offset, old.length);
  await flushImage(state);
}

/** An entry as it is to be. */
async function mended(state: Qcow2State, snapshot: Snapshot): Promise<Uint8Array> {
  const { entryAt, entryBytes, extraSize, diskSize } = snapshot;
  const kept = Math.min(extraSize, HARD_LIMITS.snapshotExtra);
  const entry = new Uint8Array(entryBytes - extraSize + kept + SNAPSHOT_ALIGNMENT);
  const namesAt = snapshotHead.size + kept;
  await state.storage.read(hostOffset(entryAt), entry.subarray(0, namesAt));
  await state.storage.read(
    hostOffset(entryAt + snapshotHead.size + extraSize),
    entry.subarray(namesAt),
  );
  const head = { ...snapshotHead.decode(entry), extraSize: kept };
  snapshotHead.encode(head, entry);
  if (diskSize === null) return completed(entry, state.header.size);
  const end = namesAt + head.idLength + head.nameLength;
  entry.fill(0, end);
  return entry.subarray(0, alignUp(end, SNAPSHOT_ALIGNMENT));
}

function completed(entry: Uint8Array, size: number): Uint8Array {
  const head = snapshotHead.decode(entry);
  const { extraSize, idLength, nameLength, stateSize } = head;
  const namesAt = snapshotHead.size + snapshotExtra.size;
  const longer = new Uint8Array(alignUp(namesAt + idLength + nameLength, SNAPSHOT_ALIGNMENT));
  snapshotHead.encode({ ...head, extraSize: snapshotExtra.size }, longer);
  snapshotExtra.encode(
    {
      largeStateSize: [0, stateSize],
      diskSize: size,
      instructions: [0xffff_ffff, 0xffff_ffff],
    },
    longer,
    snapshotHead.size,
  );
  // of what there is whole fields stay, which is the first at most: the second says how large the disk was
  const kept = extraSize < ENTRY_BYTES ? 0 : ENTRY_BYTES;
  longer.set(entry.subarray(snapshotHead.size, snapshotHead.size + kept), snapshotHead.size);
  const names = snapshotHead.size + extraSize;
  longer.set(entry.subarray(names, names + idLength + nameLength), namesAt);
  return longer;
}
