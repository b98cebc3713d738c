import type { BackingReference } from '@downfold/image';
import { alignUp, hostOffset } from '@downfold/units';
import { BARRIER } from './barriers.ts';
import { imageError } from './corrupt.ts';
import { encodeExtension, findExtension } from './extensions.ts';
import { adoptHeader, writeHeaderSector } from './header-sector.ts';
import { HARD_LIMITS } from './limits.ts';
import { assertNoOverlap } from './overlap.ts';
import type { Qcow2State } from './state.ts';
import {
  EXTENSION,
  EXTENSION_ALIGNMENT,
  extensionHead,
  headerV2,
  SECTOR_BYTES,
} from './structures.ts';

/** Bytes kept free behind the extensions, where there is room, so that a mark can be added later. */
const ROOM_FOR_MARK = 256;

/** The header cluster with a new backing reference, and which part of it must be durable before its first sector. */
interface NewHeader {
  readonly cluster: Uint8Array;
  readonly nameAt: number;
  readonly nameBytes: number;
}

/**
 * Rewrites the backing reference (rule W11): the new name goes to a place of the header cluster that nothing uses, then one
 * 512-byte write of the first sector switches offset, size and format. After a crash the old or the new reference is complete.
 */
export async function setBackingReference(
  state: Qcow2State,
  reference: BackingReference | null,
): Promise<void> {
  const { cluster, nameAt, nameBytes } = layOut(state, reference);
  if (nameAt + nameBytes > SECTOR_BYTES) {
    const name = cluster.subarray(nameAt, nameAt + nameBytes);
    await assertNoOverlap(state, nameAt, nameBytes, 'header');
    await state.storage.write(hostOffset(nameAt), name, { what: 'backing name' });
    await state.storage.flush(BARRIER.backingName);
    adoptHeader(state, name, nameAt);
  }
  await writeHeaderSector(state, cluster.subarray(0, SECTOR_BYTES), BARRIER.backingSwitch);
}

/** @throws ImageError `IMAGE_NO_ROOM` when the header has no place for `reference`; writes nothing. */
export function assertRoomForBacking(state: Qcow2State, reference: BackingReference): void {
  layOut(state, reference);
}

function layOut(state: Qcow2State, reference: BackingReference | null): NewHeader {
  const cluster = state.headerCluster.slice();
  if (reference === null) return finish(cluster, 0, 0);
  const name = new TextEncoder().encode(reference.name);
  if (name.length > HARD_LIMITS.backingName)
    throw noRoom(state, `backing file name of ${name.length} bytes is longer than 1023`);
  const areaEnd = setFormat(state, cluster, reference.format);
  const nameAt = findPlace(state, areaEnd, name.length, cluster.length);
  cluster.set(name, nameAt);
  return finish(cluster, nameAt, name.length);
}

function finish(cluster: Uint8Array, nameAt: number, nameBytes: number): NewHeader {
  const fields = headerV2.decode(cluster);
  headerV2.encode({ ...fields, backingFileOffset: nameAt, backingFileSize: nameBytes }, cluster);
  return { cluster, nameAt, nameBytes };
}

/**
 * Puts the backing format into the extension area, within the first sector; returns the first byte after the area. Where the
 * old format's extension has room it is changed in place, else the area is laid out anew, which only an area that fits the
 * first sector allows: a longer one could not be switched by one write.
 */
function setFormat(state: Qcow2State, cluster: Uint8Array, format: string | null): number {
  const { area } = state.header;
  const old = findExtension(area, EXTENSION.backingFormat);
  const text = new TextEncoder().encode(format ?? '');
  const areaEnd = Math.min(area.endAt + extensionHead.size, area.limit);
  if (old === undefined && format === null) return areaEnd;
  const place = alignUp(old?.data.length ?? 0, EXTENSION_ALIGNMENT);
  if (
    old !== undefined &&
    text.length <= place &&
    old.at + extensionHead.size + place <= SECTOR_BYTES
  ) {
    cluster.set(encodeExtension(EXTENSION.backingFormat, text), old.at);
    cluster.fill(0, old.at + extensionHead.size + text.length, old.at + extensionHead.size + place);
    // an extension whose data shrank must still end where the next one starts
    if (alignUp(text.length, EXTENSION_ALIGNMENT) === place) return areaEnd;
  }
  const others = area.extensions.filter((extension) => extension !== old);
  const all = format === null ? others : [{ type: EXTENSION.backingFormat, data: text }, ...others];
  const bytes = all.map(({ type, data }) => encodeExtension(type, data));
  const start = state.header.headerLength;
  const end = start + bytes.reduce((sum, part) => sum + part.length, 0) + extensionHead.size;
  if (Math.max(end, areaEnd) > SECTOR_BYTES)
    throw noRoom(state, 'the first sector of the header has no place for a backing format');
  let at = start;
  for (const part of bytes) {
    cluster.set(part, at);
    at += part.length;
  }
  cluster.fill(0, at, end);
  return end;
}

/** A place for the new name: behind the extensions, clear of the old name unless all of it lies in the first sector. */
function findPlace(
  state: Qcow2State,
  areaEnd: number,
  length: number,
  clusterSize: number,
): number {
  const { backingFileOffset: oldAt, backingFileSize: oldBytes } = state.header;
  const oldEnd = oldAt + oldBytes;
  const free = (at: number): boolean =>
    at + length <= clusterSize &&
    (at + length <= SECTOR_BYTES || oldAt === 0 || at >= oldEnd || at + length <= oldAt);
  const behindOld = alignUp(Math.max(areaEnd, oldEnd), EXTENSION_ALIGNMENT);
  for (const at of [areaEnd + ROOM_FOR_MARK, behindOld, areaEnd]) if (free(at)) return at;
  throw noRoom(state, `the header has no place for a backing file name of ${length} bytes`);
}

function noRoom(state: Qcow2State, problem: string): Error {
  return imageError(
    'IMAGE_NO_ROOM',
    state.label,
    `${problem}; convert it to an image with larger clusters or use a shorter name`,
  );
}
