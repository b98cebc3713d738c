import { assertSameBytes } from '@downfold/compliance';
import type { OpenMode, Storage } from '@downfold/storage';
import {
  alignDown,
  alignUp,
  byteLength,
  type GuestRange,
  guestOffset,
  hostOffset,
  rangeEnd,
} from '@downfold/units';
import type { Image, ImageFormat } from '../image.ts';
import type { CowSource, ImageCopyPiece } from '../write-options.ts';
import { BELOW, backingFile, fillContent } from './content.ts';
import { expectEqual, fail } from './expect.ts';
import { bytesThatAre, extentsOf } from './extents-of.ts';
import type { ImageFile } from './image-file.ts';
import { type Interval, joined, subtract } from './intervals.ts';

/** Bytes of another file, to copy from. */
export interface CopySource {
  readonly storage: Storage;
  /** Content of the whole file. */
  readonly bytes: Uint8Array;
}

/** `length` bytes at `from` of a source, copied to byte `at` of the disk. */
export interface CopiedPart {
  readonly from: number;
  readonly at: number;
  readonly length: number;
}

/** What a layer is made of. */
export interface LayerParts {
  readonly format: ImageFormat;
  readonly file: ImageFile;
  readonly image: Image;
  /** Bytes of the backing file; null without one. */
  readonly belowBytes: number | null;
}

/**
 * An image with a flat model of what it must read as. Changes go through here: each changes the model too, and is held to the rule
 * that `fill` is asked for exactly the bytes that were unallocated, no longer are, and were not covered by the change.
 */
export class Layer {
  readonly file: ImageFile;
  readonly belowBytes: number | null;
  /** What the virtual disk must read as, backing file included. */
  model: Uint8Array;
  readonly #format: ImageFormat;
  #image: Image;
  #writes = 0;

  constructor({ format, file, image, belowBytes }: LayerParts) {
    this.#format = format;
    this.file = file;
    this.#image = image;
    this.belowBytes = belowBytes;
    this.model = this.#belowView(image.geometry.virtualSize);
  }

  get image(): Image {
    return this.#image;
  }
  /** Bytes. */
  get size(): number {
    return this.#image.geometry.virtualSize;
  }
  /** What lies below, for members that ask for it. */
  get fill(): CowSource | null {
    return this.belowBytes === null ? null : backingFile(this.belowBytes);
  }
  get whole(): GuestRange {
    return rangeOf(0, this.size);
  }

  /** Writes bytes that were never written before. */
  async write(at: number, length: number): Promise<void> {
    const source = new Uint8Array(length);
    fillContent(source, at, ++this.#writes);
    await this.#change(rangeOf(at, length), (fill) =>
      this.#image.write(guestOffset(at), source, { fill }),
    );
    this.model.set(source, at);
  }

  /** Copies `length` bytes at `from` of a file; zeros past its end. */
  async copyFrom(source: CopySource, from: number, at: number, length: number): Promise<void> {
    const pieces = piecesOf(source, [{ from, at, length }]);
    await this.#change(rangeOf(at, length), (fill) => this.#image.copyFrom(pieces, { fill }));
    this.model.fill(0, at, at + length);
    this.model.set(source.bytes.subarray(from, from + length), at);
  }

  /** Copies many pieces in one call. What `fill` is asked for depends on their order, so that is not looked at. */
  async copyPieces(source: CopySource, parts: readonly CopiedPart[]): Promise<void> {
    await this.#image.copyFrom(piecesOf(source, parts), { fill: this.fill });
    for (const { from, at, length } of parts) {
      this.model.fill(0, at, at + length);
      this.model.set(source.bytes.subarray(from, from + length), at);
    }
  }

  async writeZeroes(at: number, length: number): Promise<void> {
    const range = rangeOf(at, length);
    await this.#change(range, (fill) => this.#image.writeZeroes(range, { fill }));
    this.model.fill(0, at, at + length);
  }

  /** The backing file shows in whole allocation units; the rest keeps its content. */
  async deallocate(at: number, length: number): Promise<void> {
    await this.#image.deallocate(rangeOf(at, length));
    const unit = this.#image.geometry.allocationGranularity;
    const end = at + length;
    const from = alignUp(at, unit);
    const to = end === this.size ? end : alignDown(end, unit);
    if (to <= from) return;
    this.model.set(this.#belowView(to).subarray(from), from);
    for (const { offset, status } of await extentsOf(this.#image, rangeOf(from, to - from)))
      if (status !== 'unallocated') fail(`byte ${offset} is ${status} after it was deallocated`);
  }

  /** `fill` is given unless the backing file ends before the disk does. */
  async resize(size: number): Promise<void> {
    const old = this.size;
    const reaches = this.belowBytes !== null && this.belowBytes > old;
    await this.#change(rangeOf(old, size - old), (fill) =>
      this.#image.resize(byteLength(size), { fill: reaches ? fill : null }),
    );
    expectEqual(this.size, size, 'virtual size after resize');
    const larger = new Uint8Array(size);
    larger.set(this.model);
    this.model = larger;
    const unallocated = bytesThatAre('unallocated', await this.extents());
    if (reaches && unallocated.some(([, to]) => to > old))
      fail('resize with a backing file below left new bytes unallocated');
  }

  /** Closes the image and opens it again; nothing is flushed. */
  async reopen(mode: OpenMode): Promise<void> {
    await this.#image[Symbol.asyncDispose]();
    this.#image = await this.#format.open(await this.file.open(), { mode });
  }

  /** Opens what a crash left, for reading. */
  openAfter(storage: Storage): Promise<Image> {
    return this.#format.open(storage, { mode: 'read' });
  }

  /** All extents of the disk. */
  extents(): ReturnType<typeof extentsOf> {
    return extentsOf(this.#image, this.whole);
  }

  /** The disk as `image` (default: this one) shows it. */
  async view(image: Image = this.#image): Promise<Uint8Array> {
    const bytes = new Uint8Array(image.geometry.virtualSize);
    await image.read(guestOffset(0), bytes, this.fill);
    return bytes;
  }

  /** The disk reads as it must, the backing file is asked exactly for what is unallocated, and none of that writes. */
  async verify(): Promise<void> {
    const changes = this.file.changes;
    const calls: Interval[] = [];
    const view = new Uint8Array(this.size);
    await this.#image.read(guestOffset(0), view, this.#noting(calls));
    assertSameBytes(view, this.model, 'the disk');
    const unallocated = bytesThatAre('unallocated', await this.extents());
    if (this.belowBytes !== null)
      expectEqual(joined(calls, '`below` is called for'), unallocated, '`below` is called for');
    expectEqual(this.file.changes, changes, 'changes of the file by reading');
  }

  /** Flushes; everything holds then, and again for who opens the image afterwards. Leaves it open for reading. */
  async settle(): Promise<void> {
    await this.verify();
    if (this.#image.writable) await this.#image.flush();
    await this.verify();
    await this.#verifyHosts();
    await expectSound(this.#image);
    await this.reopen('read');
    await this.verify();
    await expectSound(this.#image);
  }

  async close(): Promise<void> {
    await this.#image[Symbol.asyncDispose]();
  }

  /** What is mapped as data lies where the extent says. */
  async #verifyHosts(): Promise<void> {
    for (const extent of await this.extents()) {
      if (extent.status !== 'data') continue;
      const bytes = new Uint8Array(extent.length);
      await this.#image.data.read(extent.host, bytes);
      const expected = this.model.subarray(extent.offset, rangeEnd(extent));
      assertSameBytes(bytes, expected, `host bytes of the extent at ${extent.offset}`);
    }
  }

  async #change(range: GuestRange, work: (fill: CowSource | null) => Promise<void>): Promise<void> {
    const before = bytesThatAre('unallocated', await this.extents());
    const calls: Interval[] = [];
    await work(this.#noting(calls));
    if (this.belowBytes === null) return;
    const after = bytesThatAre('unallocated', await this.extents());
    const lost = subtract(subtract(before, after), [[range.offset, rangeEnd(range)]]);
    expectEqual(joined(calls, '`fill` is called for'), lost, '`fill` is called for');
  }

  /** The backing file, slow to answer, noting what it is asked for. */
  #noting(calls: Interval[]): CowSource | null {
    const { fill } = this;
    if (fill === null) return null;
    return async (offset, target) => {
      calls.push([offset, offset + target.length]);
      await Promise.resolve();
      await fill(offset, target);
    };
  }

  #belowView(size: number): Uint8Array {
    const bytes = new Uint8Array(size);
    fillContent(bytes.subarray(0, this.belowBytes ?? 0), 0, BELOW);
    return bytes;
  }
}

function piecesOf(source: CopySource, parts: readonly CopiedPart[]): ImageCopyPiece[] {
  return parts.map(({ from, at, length }) => ({
    source: source.storage,
    from: hostOffset(from),
    offset: guestOffset(at),
    length: byteLength(length),
  }));
}

/** Checks the metadata: neither errors nor leaks. */
export async function expectSound(image: Image): Promise<void> {
  const findings: string[] = [];
  const report = await image.check({ onFinding: ({ message }) => findings.push(message) });
  expectEqual(findings, [], 'findings of the check');
  expectEqual([report.corruptions, report.leaks], [0, 0], 'corruptions and leaks');
}

/** A guest range. */
export function rangeOf(offset: number, length: number): GuestRange {
  return { offset: guestOffset(offset), length: byteLength(length) };
}
