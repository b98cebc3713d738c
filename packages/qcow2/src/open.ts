import type { ImageLimits, OpenImageOptions } from '@downfold/image';
import type { Storage } from '@downfold/storage';
import { hostOffset } from '@downfold/units';
import { imageError } from './corrupt.ts';
import { geometryOf } from './geometry.ts';
import { claimedClusterSize, parseHeader } from './header.ts';
import { L2Cache } from './l2-cache.ts';
import { DEFAULT_LIMITS } from './limits.ts';
import { metadataMap } from './overlap.ts';
import { openRefcounts } from './refcounts.ts';
import { readSnapshots, snapshotTableBytes } from './snapshots.ts';
import type { Qcow2State, Writer } from './state.ts';
import { ENTRY_BYTES, INCOMPATIBLE, SECTOR_BYTES } from './structures.ts';
import { wordsOf } from './words.ts';

/** Opens an image: reads and checks header and L1 table, and for writing the refcount table. Writes nothing. */
export async function openState(storage: Storage, options: OpenImageOptions): Promise<Qcow2State> {
  const { label } = storage;
  const limits: ImageLimits = { ...DEFAULT_LIMITS, ...options.limits };
  const fileEnd = await storage.length();
  const head = new Uint8Array(SECTOR_BYTES);
  await storage.read(hostOffset(0), head, options);
  const headerCluster = new Uint8Array(claimedClusterSize(label, head, fileEnd));
  await storage.read(hostOffset(0), headerCluster, options);
  const header = parseHeader(label, headerCluster, fileEnd, limits);
  const geometry = geometryOf(
    header.clusterBits,
    (header.incompatible[1] & INCOMPATIBLE.extendedL2) !== 0,
    header.refcountOrder,
  );
  const l1Bytes = new Uint8Array(header.l1Size * ENTRY_BYTES);
  if (l1Bytes.length + geometry.clusterSize > limits.metadataBytes)
    throw imageError(
      'IMAGE_LIMIT',
      label,
      `L1 table of ${l1Bytes.length} bytes is above the memory limit`,
      header.l1TableOffset,
    );
  await storage.read(hostOffset(header.l1TableOffset), l1Bytes, options);
  const state: Qcow2State = {
    storage,
    label,
    limits,
    geometry,
    header,
    headerCluster,
    fileEnd,
    l1: wordsOf(l1Bytes),
    l2: new L2Cache(geometry.clusterSize),
    lastCompressed: null,
    writer: null,
    closed: false,
  };
  return options.mode === 'write' ? { ...state, writer: await openWriter(state) } : state;
}

async function openWriter(state: Qcow2State): Promise<Writer> {
  const bits = state.header.incompatible[1];
  const why = bits & INCOMPATIBLE.corrupt ? 'corrupt' : bits & INCOMPATIBLE.dirty ? 'dirty' : null;
  if (why !== null)
    throw imageError(
      'IMAGE_NEEDS_REPAIR',
      state.label,
      `is marked ${why}; repair it first: qemu-img check -r all`,
    );
  const refcounts = await openRefcounts(state);
  const metadata = metadataMap(state, refcounts.table);
  const { clusterSize } = state.geometry;
  const snapshots = await readSnapshots(state);
  const protect = (kind: 'L1 table' | 'snapshot table', offset: number, bytes: number): void => {
    for (let at = offset; at < offset + bytes; at += clusterSize)
      metadata.set(at / clusterSize, kind);
  };
  protect('snapshot table', state.header.snapshotsOffset, snapshotTableBytes(snapshots));
  for (const snapshot of snapshots)
    protect('L1 table', snapshot.l1TableOffset, snapshot.l1Size * ENTRY_BYTES);
  return {
    refcounts,
    metadata,
    nextFree: 0,
    releases: [],
    l1Changed: new Set(),
    dataDirty: false,
    autoclearDone: false,
    poisoned: false,
    mutation: Promise.resolve(),
    flushing: Promise.resolve(),
  };
}
