// What other programs put into images, written byte by byte: internal snapshots, compressed clusters, unknown autoclear bits.
// Layout: docs/interop/qcow2.rst of QEMU. Small images only: one refcount block must be able to count every cluster.
import { deflateRawSync } from 'node:zlib';

/** A file in memory as whole bytes. */
export interface ForeignFile {
  /** Bytes of the whole file; replaced when it grows. */
  bytes: Uint8Array;
}

const COPIED = 1n << 63n;
const COMPRESSED = 1n << 62n;
const OFFSET = 0x00ff_ffff_ffff_fe00n;

/** Header fields that are needed here. */
class Qcow2Bytes {
  readonly #file: ForeignFile;

  constructor(file: ForeignFile) {
    this.#file = file;
  }

  get view(): DataView {
    const { buffer, byteOffset, byteLength } = this.#file.bytes;
    return new DataView(buffer, byteOffset, byteLength);
  }
  get clusterBits(): number {
    return this.view.getUint32(20);
  }
  get clusterSize(): number {
    return 2 ** this.clusterBits;
  }
  get size(): number {
    return Number(this.view.getBigUint64(24));
  }
  get l1(): { readonly offset: number; readonly entries: number } {
    return { offset: Number(this.view.getBigUint64(40)), entries: this.view.getUint32(36) };
  }
  get refcountBits(): number {
    return this.view.getUint32(4) === 2 ? 16 : 2 ** this.view.getUint32(96);
  }
  /** Words of an L2 entry. */
  get l2EntryBytes(): number {
    return this.view.getUint32(4) === 3 && (this.view.getUint32(76) & 16) !== 0 ? 16 : 8;
  }

  /** Adds to the refcount of the cluster that holds a byte. */
  count(offset: number, by: number): void {
    const { view, clusterSize, refcountBits } = this;
    const block = Number(view.getBigUint64(Number(view.getBigUint64(48))));
    const index = Math.floor(offset / clusterSize);
    if ((index + 1) * refcountBits > clusterSize * 8)
      throw new RangeError('more than one refcount block');
    if (refcountBits === 16)
      view.setUint16(block + index * 2, view.getUint16(block + index * 2) + by);
    else if (refcountBits === 64)
      view.setBigUint64(block + index * 8, view.getBigUint64(block + index * 8) + BigInt(by));
    else throw new RangeError(`refcounts of ${refcountBits} bits`);
  }

  /** A new cluster at the end of the file, counted once; its offset. */
  append(): number {
    const { clusterSize } = this;
    const at = Math.ceil(this.#file.bytes.length / clusterSize) * clusterSize;
    const bytes = new Uint8Array(at + clusterSize);
    bytes.set(this.#file.bytes);
    this.#file.bytes = bytes;
    this.count(at, 1);
    return at;
  }
}

/** Takes an internal snapshot, as `qemu-img snapshot -c` does: every cluster is shared from now on. */
export function takeSnapshot(file: ForeignFile): void {
  const image = new Qcow2Bytes(file);
  const { l1, clusterSize } = image;
  const copy = image.append();
  const table = image.append();
  file.bytes.copyWithin(copy, l1.offset, l1.offset + Math.min(clusterSize, l1.entries * 8));
  const { view } = image;
  for (let index = 0; index < l1.entries; index++) {
    const l2 = Number(view.getBigUint64(l1.offset + index * 8) & OFFSET);
    if (l2 === 0) continue;
    image.count(l2, 1);
    for (const at of [l1.offset + index * 8, copy + index * 8])
      view.setBigUint64(at, view.getBigUint64(at) & ~COPIED);
    shareTable(image, l2);
  }
  const [id, name] = ['1', 'before'];
  view.setBigUint64(table, BigInt(copy));
  view.setUint32(table + 8, l1.entries);
  view.setUint16(table + 12, id.length);
  view.setUint16(table + 14, name.length);
  view.setUint32(table + 36, 16);
  view.setBigUint64(table + 48, BigInt(image.size));
  file.bytes.set(new TextEncoder().encode(id + name), table + 56);
  view.setUint32(60, 1);
  view.setBigUint64(64, BigInt(table));
}

function shareTable(image: Qcow2Bytes, l2: number): void {
  const { view, clusterSize, l2EntryBytes } = image;
  for (let at = l2; at < l2 + clusterSize; at += l2EntryBytes) {
    const entry = view.getBigUint64(at);
    if ((entry & COMPRESSED) !== 0n) {
      for (const cluster of compressedClusters(image, entry)) image.count(cluster, 1);
      continue;
    }
    if ((entry & OFFSET) !== 0n) image.count(Number(entry & OFFSET), 1);
    view.setBigUint64(at, entry & ~COPIED);
  }
}

function compressedClusters(image: Qcow2Bytes, entry: bigint): readonly number[] {
  const bits = BigInt(62 - (image.clusterBits - 8));
  const offset = Number(entry & ((1n << bits) - 1n));
  const sectors = Number((entry & (COMPRESSED - 1n)) >> bits);
  const end = offset - (offset % 512) + (sectors + 1) * 512;
  const clusters: number[] = [];
  const first = offset - (offset % image.clusterSize);
  for (let at = first; at < end; at += image.clusterSize) clusters.push(at);
  return clusters;
}

/**
 * Writes guest clusters compressed, as `qemu-img convert -c` does, several of them into one host cluster. Only where an L2 table is
 * there already and says unallocated; resolves with how many there were.
 */
export function addCompressed(
  file: ForeignFile,
  clusters: readonly { readonly offset: number; readonly bytes: Uint8Array }[],
): number {
  const image = new Qcow2Bytes(file);
  const { clusterSize, clusterBits } = image;
  let written = 0;
  let [host, used] = [0, clusterSize];
  for (const { offset, bytes } of clusters) {
    const at = entryAt(image, offset);
    if (at === null) continue;
    const packed = deflateRawSync(bytes, { windowBits: 12 });
    if (packed.length > clusterSize) continue;
    if (used + packed.length > clusterSize) {
      [host, used] = [image.append(), 0];
      image.count(host, -1);
    }
    const place = host + used;
    file.bytes.set(packed, place);
    const sectors = Math.ceil(((place % 512) + packed.length) / 512) - 1;
    const entry = COMPRESSED | (BigInt(sectors) << BigInt(62 - (clusterBits - 8))) | BigInt(place);
    image.view.setBigUint64(at, entry);
    image.count(host, 1);
    used += packed.length;
    written++;
  }
  return written;
}

/** Where the L2 entry of an unallocated guest cluster lies; null: there is no table, or it is not unallocated. */
function entryAt(image: Qcow2Bytes, offset: number): number | null {
  const { view, l1, clusterSize } = image;
  const entries = clusterSize / 8;
  const cluster = Math.floor(offset / clusterSize);
  const l1Index = Math.floor(cluster / entries);
  if (l1Index >= l1.entries) return null;
  const l2 = Number(view.getBigUint64(l1.offset + l1Index * 8) & OFFSET);
  const at = l2 + (cluster % entries) * 8;
  return l2 === 0 || view.getBigUint64(at) !== 0n ? null : at;
}

/** Bit 40 of the autoclear features: nobody has defined it. */
const UNKNOWN_AUTOCLEAR = 1n << 40n;

/** Sets an autoclear bit that means: my side table is true as long as this bit is set. */
export function setUnknownAutoclear(file: ForeignFile): void {
  const { view } = new Qcow2Bytes(file);
  view.setBigUint64(88, view.getBigUint64(88) | UNKNOWN_AUTOCLEAR);
}

/** Whether the first sector of an image still has that bit. */
export function claimsUnknownAutoclear(sector: Uint8Array): boolean {
  const view = new DataView(sector.buffer, sector.byteOffset, sector.byteLength);
  return view.getUint32(4) === 3 && (view.getBigUint64(88) & UNKNOWN_AUTOCLEAR) !== 0n;
}
