import type { ImageSnapshot } from '@downfold/image';
import { alignDown, alignUp, hostOffset } from '@downfold/units';
import { corrupt, decoding, imageError } from './corrupt.ts';
import { HARD_LIMITS } from './limits.ts';
import { MetadataCache } from './metadata-cache.ts';
import type { Qcow2State } from './state.ts';
import {
  ENTRY_BYTES,
  NO_INSTRUCTIONS,
  SECTOR_BYTES,
  SNAPSHOT_ALIGNMENT,
  snapshotExtra,
  snapshotHead,
} from './structures.ts';
import { wordsOf } from './words.ts';

/** One internal snapshot. */
export interface Snapshot extends ImageSnapshot {
  readonly l1TableOffset: number;
  /** Entries. */
  readonly l1Size: number;
  /** Byte of this entry in the file, and bytes of it. */
  readonly entryAt: number;
  readonly entryBytes: number;
  /** Bytes of its extra data. */
  readonly extraSize: number;
  /** Virtual size at the time, bytes; null: not kept, and the same as now. */
  readonly diskSize: number | null;
}

/**
 * Reads the snapshot table; of one that is mended no more than what QEMU's limits allow, and extra data of any length.
 * @throws ImageError `IMAGE_CORRUPT` or `IMAGE_LIMIT`
 */
export async function readSnapshots(state: Qcow2State): Promise<readonly Snapshot[]> {
  // one table, also when another one takes its place meanwhile
  const { nbSnapshots, snapshotsOffset } = state.header;
  const snapshots: Snapshot[] = [];
  let at = snapshotsOffset;
  for (let index = 0; index < nbSnapshots; index++) {
    const snapshot = await readSnapshot(state, at);
    at += snapshot.entryBytes;
    const above = at - snapshotsOffset > HARD_LIMITS.snapshotTable;
    if (above && state.mending) break;
    if (above)
      throw imageError(
        'IMAGE_LIMIT',
        state.label,
        `snapshot table is above 64 MiB${mended('snapshots')}`,
        at,
      );
    snapshots.push(snapshot);
  }
  return snapshots;
}

async function readSnapshot(state: Qcow2State, at: number): Promise<Snapshot> {
  if (at >= state.fileEnd)
    throw corrupt(state.label, 'snapshot table reaches past the end of the file', at);
  const bytes = new Uint8Array(snapshotHead.size);
  await state.storage.read(hostOffset(at), bytes);
  const head = decoding(state.label, 'snapshot', at, () => snapshotHead.decode(bytes));
  if (head.extraSize > HARD_LIMITS.snapshotExtra && !state.mending)
    throw corrupt(
      state.label,
      `snapshot with ${head.extraSize} bytes of extra data${mended('bytes')}`,
      at,
    );
  const l1Bytes = head.l1Size * ENTRY_BYTES;
  if (l1Bytes > HARD_LIMITS.l1Table)
    throw imageError('IMAGE_LIMIT', state.label, "a snapshot's L1 table is above 32 MiB", at);
  const { clusterSize } = state.geometry;
  if (
    head.l1TableOffset % clusterSize !== 0 ||
    (l1Bytes > 0 && head.l1TableOffset >= state.fileEnd)
  )
    throw corrupt(
      state.label,
      `a snapshot's L1 table at ${head.l1TableOffset} is no cluster of the file`,
      at,
    );
  const extra = new Uint8Array(Math.min(head.extraSize, HARD_LIMITS.snapshotExtra));
  await state.storage.read(hostOffset(at + snapshotHead.size), extra);
  const namesAt = snapshotHead.size + head.extraSize;
  const names = new Uint8Array(head.idLength + head.nameLength);
  await state.storage.read(hostOffset(at + namesAt), names);
  const text = new TextDecoder();
  return {
    id: text.decode(names.subarray(0, head.idLength)),
    name: text.decode(names.subarray(head.idLength)),
    seconds: head.seconds,
    nanoseconds: head.nanoseconds,
    clock: String(wide(head.clock)),
    ...fromExtra(extra, head.stateSize),
    l1TableOffset: head.l1TableOffset,
    l1Size: head.l1Size,
    diskSize: diskSizeIn(extra),
    entryAt: at,
    entryBytes: alignUp(namesAt + names.length, SNAPSHOT_ALIGNMENT),
    extraSize: head.extraSize,
  };
}

function mended(what: string): string {
  return `; a repair takes away the ${what} above the limit: downfold check -r all`;
}

/** What newer writers put into the extra data, of which older ones have less or none. */
function fromExtra(
  extra: Uint8Array,
  stateSize: number,
): Pick<ImageSnapshot, 'stateBytes' | 'instructions'> {
  const view = new DataView(extra.buffer, extra.byteOffset, extra.length);
  const word = ({ at }: { readonly at: number }): bigint | null =>
    extra.length < at + ENTRY_BYTES ? null : view.getBigUint64(at);
  const { largeStateSize, instructions } = snapshotExtra.fields;
  const counted = word(instructions) ?? NO_INSTRUCTIONS;
  return {
    stateBytes: Number(word(largeStateSize) ?? stateSize),
    instructions: counted === NO_INSTRUCTIONS ? null : String(counted),
  };
}

function diskSizeIn(extra: Uint8Array): number | null {
  const { diskSize } = snapshotExtra.fields;
  if (extra.length < diskSize.at + ENTRY_BYTES) return null;
  return Number(new DataView(extra.buffer, extra.byteOffset).getBigUint64(diskSize.at));
}

function wide([high, low]: readonly [high: number, low: number]): bigint {
  return BigInt(high) * 2n ** 32n + BigInt(low);
}

/** What there is to say of a snapshot to those who do not look into the file. */
export function snapshotFacts(snapshot: Snapshot): ImageSnapshot {
  const { id, name, stateBytes, seconds, nanoseconds, clock, instructions } = snapshot;
  return { id, name, stateBytes, seconds, nanoseconds, clock, instructions };
}

/** The L1 table of a snapshot as words, two an entry. */
export async function readSnapshotL1(state: Qcow2State, snapshot: Snapshot): Promise<Uint32Array> {
  const bytes = new Uint8Array(snapshot.l1Size * ENTRY_BYTES);
  await state.storage.read(hostOffset(snapshot.l1TableOffset), bytes);
  return wordsOf(bytes);
}

/** Bytes of the whole snapshot table. */
export function snapshotTableBytes(snapshots: readonly Snapshot[]): number {
  return snapshots.reduce((sum, snapshot) => sum + snapshot.entryBytes, 0);
}

/** The snapshot of that id. @throws ImageError `IMAGE_RANGE` when there is none. */
export function snapshotNamed(
  state: Qcow2State,
  snapshots: readonly Snapshot[],
  id: string,
): Snapshot {
  const found = snapshots.find((snapshot) => snapshot.id === id);
  if (found !== undefined) return found;
  throw imageError('IMAGE_RANGE', state.label, `has no internal snapshot with the id '${id}'`);
}

/** The image as a snapshot shows it, for reading only. @throws ImageError `IMAGE_LIMIT` for a disk that is too large. */
export function snapshotState(
  state: Qcow2State,
  { l1TableOffset, l1Size, diskSize }: Snapshot,
  l1: Uint32Array,
): Qcow2State {
  const size = alignDown(diskSize ?? state.header.size, SECTOR_BYTES);
  const needed = Math.ceil(size / state.geometry.l2Reach);
  if (size > state.limits.virtualSize || needed * ENTRY_BYTES > HARD_LIMITS.l1Table)
    throw imageError('IMAGE_LIMIT', state.label, `a snapshot of ${size} bytes is above the limit`);
  const words = new Uint32Array(2 * Math.max(l1Size, needed));
  words.set(l1);
  return {
    ...state,
    header: { ...state.header, l1TableOffset, l1Size: words.length / 2, size },
    l1: words,
    l2: new MetadataCache(state.geometry.clusterSize),
    lastCompressed: null,
    compressedAnew: 0,
    writer: null,
    staged: null,
    ownsFile: false,
  };
}
