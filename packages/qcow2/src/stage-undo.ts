import type { Undo } from '@downfold/image';
import { ownTable, touchEntries } from './allocate.ts';
import { imageError } from './corrupt.ts';
import { assertCountable } from './countable.ts';
import { flushImage, isMuchDirty } from './flush.ts';
import { writeFresh } from './fresh-metadata.ts';
import { hostClusters } from './l2-entry.ts';
import type { L2Table } from './l2-table.ts';
import { HARD_LIMITS, SAFE_LIMITS } from './limits.ts';
import { addReference } from './refcounts.ts';
import { encodeSnapshot, entriesOf, freeId } from './snapshot-table.ts';
import { readSnapshots, snapshotTableBytes } from './snapshots.ts';
import { sameHost } from './stage-entries.ts';
import { imageOf } from './stage-state.ts';
import type { Qcow2State } from './state.ts';
import type { HeaderV2 } from './structures.ts';
import { loadL2 } from './tables.ts';
import { writerOf } from './writer.ts';

/** The internal snapshot that keeps the old mapping. */
export interface UndoSnapshot extends Undo {
  /** Whether it must have a name that is no other snapshot's. Default true. */
  readonly unique?: boolean;
}

/** What an undo snapshot takes; nothing has been changed for it yet. */
export interface UndoPlan {
  /** Bytes of the present snapshot table, 0 without one. */
  readonly tableBytes: number;
  /** The snapshot table with the new snapshot. */
  readonly table: Uint8Array;
  readonly nbSnapshots: number;
}

/** QEMU shows no more of a snapshot's name, bytes. */
const LONGEST_NAME = 255;

/** A snapshot's seconds since 1970 have 32 bits; milliseconds. */
const LATEST = 1000 * 2 ** 32;

/**
 * @throws ImageError `IMAGE_UNSUPPORTED`, `IMAGE_LIMIT` or `IMAGE_NO_SPACE` when the image cannot keep its mapping as an internal
 * snapshot; nothing was changed then.
 */
export async function planUndo(staged: Qcow2State, undo: UndoSnapshot): Promise<UndoPlan> {
  const image = imageOf(staged);
  const refuse = (problem: string): never => {
    throw imageError('IMAGE_UNSUPPORTED', image.label, problem, undefined, { feature: problem });
  };
  const snapshots = await readSnapshots(image);
  const milliseconds = Date.parse(undo.date);
  const nameBytes = new TextEncoder().encode(undo.name).length;
  if (image.geometry.refcountBits === 1)
    refuse('refcounts of one bit cannot share clusters with an undo snapshot');
  if (image.header.version === 2 && staged.header.size !== image.header.size)
    refuse('an undo snapshot of another virtual size in a version 2 image');
  const isNameless = nameBytes === 0 && undo.unique !== false;
  if (isNameless || nameBytes > LONGEST_NAME)
    refuse(`an undo snapshot whose name has ${nameBytes} bytes`);
  if (!(milliseconds >= 0 && milliseconds < LATEST))
    refuse(`an undo snapshot of the date ${undo.date}`);
  if (undo.unique !== false && snapshots.some(({ name }) => name === undo.name))
    refuse(`an undo snapshot of the name ${undo.name}, which another snapshot has`);
  const entry = encodeSnapshot(image, { name: undo.name, id: freeId(snapshots), milliseconds });
  const present = await entriesOf(image, snapshots);
  const table = Buffer.concat([...present, entry]);
  if (snapshots.length >= SAFE_LIMITS.snapshots || table.length > HARD_LIMITS.snapshotTable)
    throw imageError('IMAGE_LIMIT', image.label, 'has as many internal snapshots as it may have');
  await assertCountable(staged, allInherited(staged), 'an undo snapshot as well');
  const tableBytes = snapshotTableBytes(snapshots);
  return { tableBytes, table, nbSnapshots: snapshots.length + 1 };
}

/** What both mappings refer to, a batch for each table. */
async function* allInherited(staged: Qcow2State): AsyncGenerator<Iterable<number>> {
  for (let l1Index = 0; l1Index < staged.header.l1Size; l1Index++) {
    const table = await loadL2(staged, l1Index);
    if (table !== null) yield inherited(staged, table);
  }
}

/**
 * Prepares that the old mapping stays as a snapshot: every L2 table of the staging becomes its own, what both mappings refer to
 * is counted twice and loses its copied flag in the staging, and the new snapshot table is written. Durable when it resolves, with the
 * header fields that go with it. A crash before these are published leaves refcounts that are too high: leaks, with which the
 * image's copied flags do not agree, until `reclaimLeaks` lowers them again.
 */
export async function writeUndo(
  staged: Qcow2State,
  plan: UndoPlan,
): Promise<Pick<HeaderV2, 'nbSnapshots' | 'snapshotsOffset'>> {
  const { l2Entries } = staged.geometry;
  const writer = writerOf(staged);
  for (let l1Index = 0; l1Index < staged.header.l1Size; l1Index++) {
    if ((await loadL2(staged, l1Index)) === null) continue;
    const table = await ownTable(staged, l1Index);
    for (const cluster of inherited(staged, table))
      await addReference(staged, writer.refcounts, cluster);
    table.lower = null;
    touchEntries(staged, table, 0, l2Entries);
    if (isMuchDirty(staged)) await flushImage(staged);
  }
  const { table, nbSnapshots } = plan;
  const snapshotsOffset = await writeFresh(staged, 'snapshot table', table);
  await flushImage(staged);
  return { nbSnapshots, snapshotsOffset };
}

/** The host clusters that a table of a staging refers to as the image's own table does, each as often as it does. */
function* inherited(staged: Qcow2State, table: L2Table): Generator<number, void, undefined> {
  const { l2Entries, entryWords } = staged.geometry;
  if (table.lower === null) return;
  for (let index = 0; index < l2Entries; index++) {
    if (!sameHost(table.words, table.lower, index * entryWords)) continue;
    yield* hostClusters(staged, table, index);
  }
}
