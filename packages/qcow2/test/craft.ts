import { deflateRawSync } from 'node:zlib';
import type { MemoryDisk } from '@downfold/storage-memory';
import { encodeExtension } from '../src/extensions.ts';
import { type Geometry, geometryOf } from '../src/geometry.ts';
import { largestRefcount, refcountAt, setRefcount } from '../src/refcount-codec.ts';
import {
  AUTOCLEAR,
  AUTOCLEAR_AT,
  bitmapEntry,
  bitmapsExtension,
  ENTRY_BYTES,
  EXTENSION,
  entryOffset,
  HEADER_V2_BYTES,
  type HeaderV2,
  HIGH_COMPRESSED,
  HIGH_COPIED,
  headerV2,
  headerV3,
  INCOMPATIBLE,
  snapshotHead,
} from '../src/structures.ts';

/**
 * Changes an image on a memory disk byte by byte, to what QEMU makes and Downfold does not: internal snapshots, compressed
 * clusters, bitmaps, extensions. Everything has its refcount; a test has QEMU check the results.
 */
export class Craft {
  readonly #disk: MemoryDisk;
  readonly #name: string;
  readonly geometry: Geometry;

  constructor(disk: MemoryDisk, name: string) {
    this.#disk = disk;
    this.#name = name;
    const cluster = this.bytes(0, 512);
    const { clusterBits, version } = headerV2.decode(cluster);
    const v3 = version === 3 ? headerV3.decode(cluster, HEADER_V2_BYTES) : null;
    const extended = ((v3?.incompatible[1] ?? 0) & INCOMPATIBLE.extendedL2) !== 0;
    this.geometry = geometryOf(clusterBits, extended, v3?.refcountOrder ?? 4);
  }

  get header(): HeaderV2 {
    return headerV2.decode(this.bytes(0, 512));
  }

  patch(fields: Partial<HeaderV2>): void {
    const bytes = this.bytes(0, HEADER_V2_BYTES);
    headerV2.encode({ ...this.header, ...fields }, bytes);
    this.set(0, bytes);
  }

  get fileLength(): number {
    return this.#file.length;
  }

  bytes(at: number, length: number): Uint8Array {
    const bytes = new Uint8Array(length);
    this.#file.read(at, bytes);
    return bytes;
  }

  set(at: number, bytes: Uint8Array): void {
    this.#file.write(at, bytes);
  }

  word(at: number): number {
    return new DataView(this.bytes(at, 4).buffer).getUint32(0);
  }

  setWord(at: number, value: number): void {
    const bytes = new Uint8Array(4);
    new DataView(bytes.buffer).setUint32(0, value >>> 0);
    this.set(at, bytes);
  }

  setOffset(at: number, value: number): void {
    this.setWord(at, Math.floor(value / 2 ** 32));
    this.setWord(at + 4, value % 2 ** 32);
  }

  /** Whether the file may become that many clusters longer: a refcount block counts them. */
  hasRoom(clusters: number): boolean {
    const { clusterSize, refcountsPerBlock } = this.geometry;
    const { refcountTableOffset, refcountTableClusters } = this.header;
    const last = Math.ceil(this.#file.length / clusterSize) + clusters;
    const index = Math.floor(last / refcountsPerBlock);
    const entries = (refcountTableClusters * clusterSize) / ENTRY_BYTES;
    return index < entries && this.word(refcountTableOffset + ENTRY_BYTES * index + 4) !== 0;
  }

  /** Raises the refcount of the cluster that byte `at` lies in. The block must exist. */
  addReference(at: number, by = 1): void {
    const { clusterSize, refcountsPerBlock, refcountBits } = this.geometry;
    const cluster = Math.floor(at / clusterSize);
    const entry =
      this.header.refcountTableOffset + ENTRY_BYTES * Math.floor(cluster / refcountsPerBlock);
    const block = this.word(entry) * 2 ** 32 + this.word(entry + 4);
    if (block === 0) throw new Error(`no refcount block counts cluster ${cluster}`);
    const bytes = this.bytes(block, clusterSize);
    const index = cluster % refcountsPerBlock;
    const count = refcountAt(bytes, index, refcountBits) + by;
    if (count > largestRefcount(refcountBits)) throw new Error(`refcount ${count} does not fit`);
    setRefcount(bytes, index, refcountBits, count);
    this.set(block, bytes);
  }

  /** Puts bytes into new clusters behind the file, with refcount 1; returns where. */
  append(bytes: Uint8Array): number {
    const { clusterSize } = this.geometry;
    const at = Math.ceil(this.#file.length / clusterSize) * clusterSize;
    const padded = new Uint8Array(Math.ceil(bytes.length / clusterSize) * clusterSize);
    padded.set(bytes);
    this.set(at, padded);
    for (let done = 0; done < padded.length; done += clusterSize) this.addReference(at + done);
    return at;
  }

  /** Byte of the L2 entry of a guest cluster; its table must exist. */
  entryAt(guestCluster: number): number {
    const { l2Entries, entryWords } = this.geometry;
    const l1At = this.header.l1TableOffset + ENTRY_BYTES * Math.floor(guestCluster / l2Entries);
    const table = entryOffset(this.word(l1At), this.word(l1At + 4));
    if (table === 0) throw new Error(`no L2 table maps guest cluster ${guestCluster}`);
    return table + (guestCluster % l2Entries) * entryWords * 4;
  }

  /** Guest clusters that have data. */
  mapped(): number[] {
    const { l2Entries } = this.geometry;
    const { l1Size, l1TableOffset } = this.header;
    return Array.from({ length: l1Size * l2Entries }, (_, cluster) => cluster).filter((cluster) => {
      const at = l1TableOffset + ENTRY_BYTES * Math.floor(cluster / l2Entries);
      return this.word(at + 4) !== 0 && this.hostOf(cluster) !== 0;
    });
  }

  /** Byte of the host cluster of a guest cluster. */
  hostOf(guestCluster: number): number {
    const at = this.entryAt(guestCluster);
    return entryOffset(this.word(at), this.word(at + 4));
  }

  /**
   * Compresses mapped guest clusters, their data packed side by side, straddling host clusters; each in clusters of its own when
   * refcounts are too narrow for more.
   */
  compress(guestClusters: readonly number[]): void {
    if (this.geometry.refcountBits < 8) for (const cluster of guestClusters) this.#pack([cluster]);
    else this.#pack(guestClusters);
  }

  #pack(guestClusters: readonly number[]): void {
    const { clusterSize, clusterBits } = this.geometry;
    if (guestClusters.length === 0) return;
    const parts = guestClusters.map((cluster) =>
      deflateRawSync(this.bytes(this.hostOf(cluster), clusterSize), { windowBits: 12 }),
    );
    const at = this.append(Buffer.concat(parts));
    const highBits = 62 - (clusterBits - 8) - 32;
    const end = at + parts.reduce((sum, part) => sum + part.length, 0);
    // what `append` counted are the clusters themselves; they belong to the compressed data alone
    for (let done = at; done < end; done += clusterSize) this.addReference(done, -1);
    let from = at;
    for (const [index, part] of parts.entries()) {
      const entry = this.entryAt(guestClusters[index] as number);
      this.addReference(entryOffset(this.word(entry), this.word(entry + 4)), -1);
      const sectors = Math.floor((from + part.length - 1) / 512) - Math.floor(from / 512);
      this.setWord(entry, HIGH_COMPRESSED | (sectors << highBits) | Math.floor(from / 2 ** 32));
      this.setWord(entry + 4, from % 2 ** 32);
      if (this.geometry.extendedL2) this.set(entry + 8, new Uint8Array(8));
      const last = Math.floor(((Math.floor(from / 512) + sectors + 1) * 512 - 1) / clusterSize);
      for (let touched = Math.floor(from / clusterSize); touched <= last; touched++)
        this.addReference(touched * clusterSize);
      from += part.length;
    }
  }

  /** Turns data clusters into preallocated zeros: the content stays, and must not be read. */
  preallocateZero(guestClusters: readonly number[]): void {
    for (const cluster of guestClusters) {
      const at = this.entryAt(cluster);
      this.setWord(at + 4, this.word(at + 4) | 1);
    }
  }

  /** Takes an internal snapshot: every cluster shared, no copied flags. */
  snapshot(name = 'snap'): void {
    const { l1Size, l1TableOffset, nbSnapshots } = this.header;
    if (nbSnapshots > 0) throw new Error('one snapshot is enough');
    for (let index = 0; index < l1Size; index++) {
      const at = l1TableOffset + ENTRY_BYTES * index;
      const table = entryOffset(this.word(at), this.word(at + 4));
      if (table === 0) continue;
      this.addReference(table);
      this.setWord(at, this.word(at) & ~HIGH_COPIED);
      this.#share(table);
    }
    const l1At = this.append(this.bytes(l1TableOffset, l1Size * ENTRY_BYTES));
    const text = new TextEncoder().encode(`1${name}`);
    const entry = new Uint8Array(Math.ceil((snapshotHead.size + 24 + text.length) / 8) * 8);
    snapshotHead.encode(
      {
        l1TableOffset: l1At,
        l1Size,
        idLength: 1,
        nameLength: text.length - 1,
        seconds: 1,
        nanoseconds: 0,
        clock: [0, 0],
        stateSize: 0,
        extraSize: 24,
      },
      entry,
    );
    // extra data: size of the machine's state, size of the disk, instruction count (none)
    new DataView(entry.buffer).setUint32(snapshotHead.size + 12, this.header.size);
    new DataView(entry.buffer).setBigInt64(snapshotHead.size + 16, -1n);
    entry.set(text, snapshotHead.size + 24);
    this.patch({ nbSnapshots: 1, snapshotsOffset: this.append(entry) });
  }

  #share(table: number): void {
    const { clusterSize, clusterBits, entryWords } = this.geometry;
    for (let at = table; at < table + clusterSize; at += entryWords * 4) {
      const [high, low] = [this.word(at), this.word(at + 4)];
      if (high & HIGH_COMPRESSED) {
        const highBits = 62 - (clusterBits - 8) - 32;
        const offset = (high & ((1 << highBits) - 1)) * 2 ** 32 + low;
        const sectors = (high & (HIGH_COMPRESSED - 1)) >>> highBits;
        const end = (Math.floor(offset / 512) + sectors + 1) * 512;
        for (let done = offset - (offset % clusterSize); done < end; done += clusterSize)
          this.addReference(done);
      } else if (entryOffset(high, low) !== 0) {
        this.addReference(entryOffset(high, low));
        this.setWord(at, high & ~HIGH_COPIED);
      }
    }
  }

  /** Adds header extensions before those that are there; a backing name moves behind them. */
  extend(...extensions: readonly (readonly [type: number, data: Uint8Array])[]): void {
    const { version, backingFileOffset, backingFileSize } = this.header;
    const start = version === 2 ? HEADER_V2_BYTES : this.word(100);
    const added = Buffer.concat(extensions.map(([type, data]) => encodeExtension(type, data)));
    const end = backingFileOffset === 0 ? start + 24 : backingFileOffset + backingFileSize;
    if (end + added.length > this.geometry.clusterSize) throw new Error('no room');
    const old = this.bytes(start, end - start);
    this.set(start, added);
    this.set(start + added.length, old);
    if (backingFileOffset > 0) this.patch({ backingFileOffset: backingFileOffset + added.length });
  }

  /** Fills free clusters with what might be a secret: QEMU leaves old data there. */
  soil(): void {
    const { clusterSize } = this.geometry;
    for (let at = 0; at < this.#file.length; at += clusterSize)
      if (this.#refcount(at) === 0) this.set(at, new Uint8Array(clusterSize).fill(0xee));
  }

  #refcount(at: number): number {
    const { clusterSize, refcountsPerBlock, refcountBits } = this.geometry;
    const cluster = Math.floor(at / clusterSize);
    const entry =
      this.header.refcountTableOffset + ENTRY_BYTES * Math.floor(cluster / refcountsPerBlock);
    const block = this.bytes(this.word(entry) * 2 ** 32 + this.word(entry + 4), clusterSize);
    return refcountAt(block, cluster % refcountsPerBlock, refcountBits);
  }

  /** Sets autoclear bits, 64 of them as two words. */
  autoclear(high: number, low: number): void {
    this.setWord(AUTOCLEAR_AT, high);
    this.setWord(AUTOCLEAR_AT + 4, low);
  }

  /** Adds an empty persistent bitmap of 64 KiB granularity; returns the byte of its flags. */
  bitmap(name = 'bitmap'): number {
    const table = this.append(new Uint8Array(8));
    const text = new TextEncoder().encode(name);
    const entry = new Uint8Array(Math.ceil((bitmapEntry.size + text.length) / 8) * 8);
    bitmapEntry.encode(
      {
        tableOffset: table,
        tableSize: 1,
        flags: 0,
        type: 1,
        granularityBits: 16,
        nameSize: text.length,
        extraSize: 0,
      },
      entry,
    );
    entry.set(text, bitmapEntry.size);
    const directoryOffset = this.append(entry);
    const data = new Uint8Array(bitmapsExtension.size);
    bitmapsExtension.encode(
      { count: 1, reserved: 0, directorySize: entry.length, directoryOffset },
      data,
    );
    this.extend([EXTENSION.bitmaps, data]);
    this.autoclear(0, AUTOCLEAR.bitmaps);
    return directoryOffset + bitmapEntry.fields.flags.at;
  }

  get #file(): ReturnType<MemoryDisk['fileOf']> {
    return this.#disk.fileOf(this.#disk.inodeOf(this.#name));
  }
}
