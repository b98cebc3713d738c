import type { ByteLength, GuestOffset, GuestRange } from '@downfold/units';
import { assertRefcountBits, setRefcountBits } from './amend-refcounts.ts';
import { planBacking, switchBacking } from './backing.ts';
import { BARRIER } from './barriers.ts';
import { imageError } from './corrupt.ts';
import { encodeExtension } from './extensions.ts';
import { imageExtents } from './extents.ts';
import { flushImage, isMuchDirty } from './flush.ts';
import { patchHeader, writeHeader } from './header-sector.ts';
import { readSnapshotL1, readSnapshots, type Snapshot, snapshotState } from './snapshots.ts';
import type { Qcow2State } from './state.ts';
import {
  AUTOCLEAR,
  COMPATIBLE,
  EXTENSION,
  extensionHead,
  HEADER_FULL_BYTES,
  HEADER_V2_BYTES,
  headerV2,
  headerV3,
  INCOMPATIBLE,
  SECTOR_BYTES,
} from './structures.ts';
import { deallocateImage } from './unmap.ts';
import { writeImage } from './write.ts';
import { inTurn, writerOf } from './writer.ts';

/** What `amend` changes; what is absent stays. */
export interface Amendment {
  readonly version?: 2 | 3;
  readonly lazyRefcounts?: boolean;
  /** Width of refcounts: 1, 2, 4, 8, 16, 32 or 64. */
  readonly refcountBits?: number;
  /** Whether the external data file alone reads as the disk. What is not said at creation cannot be said later. */
  readonly dataFileRaw?: boolean;
}

/** Bytes of zeros that become data at a time: a multiple of every cluster size. */
const ZERO_BYTES = 2 << 20;
/** Of a snapshot's machine state, in a field of 32 bits. */
const LARGEST_STATE_BYTES = 2 ** 32 - 1;

/**
 * Changes the version of the format, the width of refcounts, whether QEMU may postpone them, and whether a data file is to be the disk; each by one write
 * of the header's first sector (W11). Durable when it resolves. To be run in the mutation queue.
 * @throws ImageError `IMAGE_UNSUPPORTED` for what version 2 has not, or a refcount does not fit; `IMAGE_NO_ROOM` when the first sector has no place
 */
export async function amendImage(state: Qcow2State, amendment: Amendment): Promise<void> {
  const { version = state.header.version, lazyRefcounts, dataFileRaw } = amendment;
  const { refcountBits = state.geometry.refcountBits } = amendment;
  if (version === 2 && lazyRefcounts === true) throw refusal(state, 'lazy refcounts in version 2');
  assertRefcountBits(state, refcountBits, version === 2 ? 2 : 3);
  if (dataFileRaw === true && state.header.dataFile?.raw !== true)
    throw refusal(state, 'data-file-raw that is set after creation');
  if (version === 3 && state.header.version === 2) await upgrade(state);
  if (refcountBits !== state.geometry.refcountBits) await setRefcountBits(state, refcountBits);
  if (lazyRefcounts !== undefined) await setLazy(state, lazyRefcounts);
  if (dataFileRaw === false) await clearDataFileRaw(state);
  if (version === 2 && state.header.version === 3) await downgrade(state);
}

async function setLazy(state: Qcow2State, lazy: boolean): Promise<void> {
  const [high, low] = state.header.compatible;
  const wanted = lazy ? low | COMPATIBLE.lazyRefcounts : low & ~COMPATIBLE.lazyRefcounts;
  if (wanted === low) return;
  await patchHeader(state, { compatible: [high, wanted >>> 0] }, BARRIER.amend);
}

async function clearDataFileRaw(state: Qcow2State): Promise<void> {
  const [high, low] = state.header.autoclear;
  const wanted = low & ~AUTOCLEAR.rawExternalData;
  if (wanted === low) return;
  await patchHeader(state, { autoclear: [high, wanted >>> 0] }, BARRIER.amend);
}

/** Snapshots of version 3 say how large the disk was. */
async function upgrade(state: Qcow2State): Promise<void> {
  const snapshots = await readSnapshots(state);
  if (snapshots.some(({ diskSize }) => diskSize === null))
    throw refusal(
      state,
      'version 3 with internal snapshots that do not say how large the disk was',
    );
  await flushImage(state);
  await inTurn(state, 'header', () => relocate(state, 3));
}

async function downgrade(state: Qcow2State): Promise<void> {
  const { header, geometry } = state;
  const refuse = (what: string): never => {
    throw refusal(state, `version 2 with ${what}`);
  };
  if (geometry.refcountBits !== 16) refuse(`refcounts of ${geometry.refcountBits} bits`);
  if ((header.incompatible[1] & ~INCOMPATIBLE.dirty) !== 0) refuse('incompatible features');
  if (writerOf(state).bitmaps.list.length > 0) refuse('persistent bitmaps');
  for (const snapshot of await readSnapshots(state)) {
    const why = await whyOnlyInVersion3(state, snapshot);
    if (why !== null) refuse(`internal snapshot '${snapshot.name}', ${why}`);
  }
  await assertRoom(state);
  await expandZeros(state);
  await flushImage(state);
  await inTurn(state, 'header', () => relocate(state, 2));
}

/** What of a snapshot version 2 cannot say; null: nothing. Its tables stay as they are. */
async function whyOnlyInVersion3(state: Qcow2State, snapshot: Snapshot): Promise<string | null> {
  const size = snapshot.diskSize ?? state.header.size;
  if (size !== state.header.size) return `whose disk has ${size} bytes`;
  if (snapshot.stateBytes > LARGEST_STATE_BYTES) return 'whose machine state is above 4 GiB';
  const shown = snapshotState(state, snapshot, await readSnapshotL1(state, snapshot));
  return (await hasZeros(shown)) ? 'which has zero clusters' : null;
}

async function hasZeros(state: Qcow2State): Promise<boolean> {
  for await (const batch of imageExtents(state, wholeOf(state)))
    for (const { status } of batch) if (status === 'zero') return true;
  return false;
}

function wholeOf({ header }: Qcow2State): GuestRange {
  return { offset: 0 as GuestOffset, length: header.size as ByteLength };
}

/** Version 2 has no zero clusters: they become data, or nothing where nothing lies below. */
async function expandZeros(state: Qcow2State): Promise<void> {
  for await (const batch of imageExtents(state, wholeOf(state))) {
    for (const { offset, length, status } of batch) {
      if (status !== 'zero') continue;
      const end = offset + length;
      if (state.header.backing === null) await deallocateImage(state, offset, end);
      else
        for (let at: number = offset; at < end; at += ZERO_BYTES) {
          const bytes = new Uint8Array(Math.min(ZERO_BYTES, end - at));
          await writeImage(state, at, bytes, null);
        }
    }
    if (isMuchDirty(state)) await flushImage(state);
  }
}

/** The extensions as the other version has them: names of features and bitmaps are of version 3 alone. */
function extensionsFor(state: Qcow2State, version: 2 | 3): Uint8Array {
  const dropped: readonly number[] =
    version === 3 ? [] : [EXTENSION.featureNames, EXTENSION.bitmaps, EXTENSION.unused];
  const parts = state.header.area.extensions
    .filter(({ type }) => !dropped.includes(type))
    .map(({ type, data }) => encodeExtension(type, data));
  return Buffer.concat([...parts, new Uint8Array(extensionHead.size)]);
}

/** @throws ImageError `IMAGE_NO_ROOM` when header and extensions of version 2 do not fit the first sector. */
async function assertRoom(state: Qcow2State): Promise<void> {
  if (HEADER_V2_BYTES + extensionsFor(state, 2).length > SECTOR_BYTES) throw noRoom(state);
}

/** Writes the header as of another version: all of it lies in the first sector. A backing name in its way moves first. */
async function relocate(state: Qcow2State, version: 2 | 3): Promise<void> {
  const headerLength = version === 2 ? HEADER_V2_BYTES : HEADER_FULL_BYTES;
  const extensions = extensionsFor(state, version);
  const end = headerLength + extensions.length;
  if (end > SECTOR_BYTES) throw noRoom(state);
  const { backing, backingFileOffset } = state.header;
  if (backingFileOffset > 0 && backingFileOffset < end) {
    if (backing === null) throw noRoom(state);
    const plan = planBacking(state, backing);
    if (plan.nameAt < end) throw noRoom(state);
    await switchBacking(state, plan);
  }
  const sector = state.headerCluster.slice(0, SECTOR_BYTES);
  const named = state.header.backingFileOffset;
  sector.fill(0, HEADER_V2_BYTES, named > 0 ? Math.min(named, SECTOR_BYTES) : SECTOR_BYTES);
  headerV2.encode({ ...headerV2.decode(sector), version }, sector);
  if (version === 3) headerV3.encode(V3, sector, HEADER_V2_BYTES);
  sector.set(extensions, headerLength);
  await writeHeader(state, 0, sector, BARRIER.amend);
}

const V3 = {
  incompatible: [0, 0],
  compatible: [0, 0],
  autoclear: [0, 0],
  refcountOrder: 4,
  headerLength: HEADER_FULL_BYTES,
} as const;

function refusal(state: Qcow2State, feature: string): Error {
  return imageError('IMAGE_UNSUPPORTED', state.label, feature, undefined, { feature });
}

function noRoom(state: Qcow2State): Error {
  return imageError(
    'IMAGE_NO_ROOM',
    state.label,
    'the first sector of the header has no place for the header of another version',
  );
}
