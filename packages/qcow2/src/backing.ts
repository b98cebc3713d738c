import type { BackingReference } from '@downfold/image';
import { alignUp } from '@downfold/units';
import { BARRIER } from './barriers.ts';
import { imageError } from './corrupt.ts';
import { encodeExtension, findExtension } from './extensions.ts';
import { writeHeader } from './header-sector.ts';
import { HARD_LIMITS } from './limits.ts';
import type { Qcow2State } from './state.ts';
import {
  EXTENSION,
  EXTENSION_ALIGNMENT,
  extensionHead,
  headerV2,
  SECTOR_BYTES,
} from './structures.ts';
import { inTurn } from './writer.ts';

/** Bytes kept free behind the extensions, where there is room, so that a mark can be added later. */
const ROOM_FOR_MARK = 256;

/** The header cluster with a new backing reference. */
export interface NewHeader {
  readonly cluster: Uint8Array;
  /** Byte of the name; 0: there is none. */
  readonly nameAt: number;
  /** What is new behind the first sector. It means nothing, and nothing else lies there, until the first sector says so. */
  readonly behind: readonly Span[];
}

/** Bytes [from, to) of the header cluster. */
interface Span {
  readonly from: number;
  readonly to: number;
}

/**
 * Rewrites the backing reference (rule W11): the new name goes to a place of the header cluster that nothing uses, then one
 * 512-byte write of the first sector switches offset, size and format. After a crash the old or the new reference is complete.
 */
export function setBackingReference(
  state: Qcow2State,
  reference: BackingReference | null,
): Promise<void> {
  return inTurn(state, 'header', () => switchBacking(state, planBacking(state, reference)));
}

/** Writes a planned header; for callers that have the header's turn, and planned in it. */
export async function switchBacking(state: Qcow2State, plan: NewHeader): Promise<void> {
  const { cluster, behind } = plan;
  for (const { from, to } of behind)
    await writeHeader(state, from, cluster.subarray(from, to), BARRIER.backingName);
  await writeHeader(state, 0, cluster.subarray(0, SECTOR_BYTES), BARRIER.backingSwitch);
}

/** The header with `reference`. Writes nothing. @throws ImageError `IMAGE_NO_ROOM` when there is no place for it. */
export function planBacking(state: Qcow2State, reference: BackingReference | null): NewHeader {
  const cluster = state.headerCluster.slice();
  const fields = headerV2.decode(cluster);
  if (reference === null) {
    closeArea(state, cluster);
    headerV2.encode({ ...fields, backingFileOffset: 0, backingFileSize: 0 }, cluster);
    return { cluster, nameAt: 0, behind: [] };
  }
  if (state.header.dataFile?.raw === true) {
    const feature = 'a backing file for an image with a raw external data file';
    throw imageError('IMAGE_UNSUPPORTED', state.label, feature, undefined, { feature });
  }
  const name = new TextEncoder().encode(reference.name);
  if (name.length > HARD_LIMITS.backingName)
    throw noRoom(state, `backing file name of ${name.length} bytes is longer than 1023`);
  const format = setFormat(state, cluster, reference.format);
  const nameAt = findPlace(state, format.to, name.length);
  cluster.set(name, nameAt);
  headerV2.encode({ ...fields, backingFileOffset: nameAt, backingFileSize: name.length }, cluster);
  const behind = [format, { from: nameAt, to: nameAt + name.length }]
    .map(({ from, to }) => ({ from: Math.max(from, SECTOR_BYTES), to }))
    .filter(({ from, to }) => from < to);
  return { cluster, nameAt, behind };
}

/**
 * Puts the backing format into the extension area. Resolves with what is new there; its end is the first byte after the area.
 * - An old format that says the same stays; one of about the same length is replaced in place.
 * - Else the area is laid out anew, which only one that fits the first sector allows: a longer one cannot be switched by one write.
 * - A first format may also follow a longer area, whose end marker it replaces: that lies in the first sector, and the rest in
 *   free space.
 */
function setFormat(state: Qcow2State, cluster: Uint8Array, format: string | null): Span {
  const { area, headerLength } = state.header;
  const old = findExtension(area, EXTENSION.backingFormat);
  if (old === undefined && format === null) return closeArea(state, cluster);
  const text = new TextEncoder().encode(format ?? '');
  const added = encodeExtension(EXTENSION.backingFormat, text);
  if (format !== null && old !== undefined) {
    if (Buffer.compare(old.data, text) === 0) return closeArea(state, cluster);
    const present = encodeExtension(EXTENSION.backingFormat, old.data).length;
    if (added.length === present && old.at + present <= SECTOR_BYTES) {
      cluster.set(added, old.at);
      return closeArea(state, cluster);
    }
  }
  const parts = area.extensions
    .filter((extension) => extension !== old)
    .map(({ type, data }) => encodeExtension(type, data));
  if (format !== null) parts.unshift(added);
  const anew = headerLength + parts.reduce((sum, part) => sum + part.length, extensionHead.size);
  if (Math.max(anew, area.endAt + extensionHead.size) <= SECTOR_BYTES)
    return put(cluster, headerLength, parts);
  const fits = area.endAt + added.length + extensionHead.size <= area.limit;
  if (old === undefined && fits && area.endAt + extensionHead.size <= SECTOR_BYTES)
    return put(cluster, area.endAt, [added]);
  throw noRoom(state, 'the first sector of the header has no place for a backing format');
}

/** The end of the area: its marker is there, or there is none because the area was full, and then it is put there. */
function closeArea(state: Qcow2State, cluster: Uint8Array): Span {
  const { endAt, limit } = state.header.area;
  const to = endAt + extensionHead.size;
  if (to <= limit) return { from: to, to };
  if (to > SECTOR_BYTES) throw noRoom(state, 'the extensions of the header fill all its room');
  return put(cluster, endAt, []);
}

/** Writes extensions and an end marker at `from`. */
function put(cluster: Uint8Array, from: number, parts: readonly Uint8Array[]): Span {
  let at = from;
  for (const part of parts) {
    cluster.set(part, at);
    at += part.length;
  }
  cluster.fill(0, at, at + extensionHead.size);
  return { from, to: at + extensionHead.size };
}

/** A place for the new name: behind the extensions, clear of the old name unless all of it lies in the first sector. */
function findPlace(state: Qcow2State, areaEnd: number, length: number): number {
  const { backingFileOffset: oldAt, backingFileSize: oldBytes } = state.header;
  const oldEnd = oldAt + oldBytes;
  const free = (at: number): boolean =>
    at + length <= state.geometry.clusterSize &&
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
