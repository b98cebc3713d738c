import { bytesTo, type FileRun, NOTHING_MORE } from '@downfold/storage';
import { hostOffset } from '@downfold/units';
import { PAGE_BYTES } from './page-hash.ts';
import { PageTable } from './page-table.ts';

/**
 * The bytes of one file, in pages that exist only where something was written. Copies share all until one of them writes,
 * so that thousands of crash states of a file cost little more than what differs.
 */
export class MemoryFile {
  #table: PageTable = new PageTable();
  /** Whether no copy shares the table. */
  #alone = true;
  #length = 0;
  #changes = 0;

  get length(): number {
    return this.#length;
  }

  /** How often it was changed. */
  get changes(): number {
    return this.#changes;
  }

  /** Bytes that pages hold. */
  get allocated(): number {
    return this.#table.count() * PAGE_BYTES;
  }

  /** An independent file with the same bytes. */
  copy(): MemoryFile {
    this.#alone = false;
    const copy = new MemoryFile();
    copy.#table = this.#table;
    copy.#alone = false;
    copy.#length = this.#length;
    copy.#changes = this.#changes;
    return copy;
  }

  /** Reads until `target` is full or the file ends; returns the bytes read. */
  read(offset: number, target: Uint8Array): number {
    const end = Math.min(this.#length, offset + target.length);
    for (let at = offset; at < end; ) {
      const inside = at % PAGE_BYTES;
      const count = Math.min(PAGE_BYTES - inside, end - at);
      const page = this.#table.read((at - inside) / PAGE_BYTES);
      if (page === undefined) target.fill(0, at - offset, at - offset + count);
      else target.set(page.subarray(inside, inside + count), at - offset);
      at += count;
    }
    return Math.max(0, end - offset);
  }

  /** What there is at a byte: pages, or none, up to the next change. */
  runAt(offset: number): FileRun {
    if (offset >= this.#length) return NOTHING_MORE;
    const index = Math.floor(offset / PAGE_BYTES);
    const first = this.#table.next(index);
    if (first === null) return NOTHING_MORE;
    if (first > index) return { hole: true, end: hostOffset(first * PAGE_BYTES) };
    let last = index;
    while (this.#table.read(last) !== undefined) last++;
    return bytesTo(Math.min(this.#length, last * PAGE_BYTES), offset);
  }

  write(offset: number, source: Uint8Array): void {
    this.#change();
    for (let done = 0; done < source.length; ) {
      const inside = (offset + done) % PAGE_BYTES;
      const part = source.subarray(done, done + PAGE_BYTES - inside);
      this.#table.write((offset + done - inside) / PAGE_BYTES).set(part, inside);
      done += part.length;
    }
    this.#length = Math.max(this.#length, offset + source.length);
  }

  /** The range reads as zeros; the file grows when it ends inside. */
  zero(offset: number, length: number): void {
    this.#change();
    this.#clear(offset, offset + length);
    this.#length = Math.max(this.#length, offset + length);
  }

  /** The range reads as zeros; the length stays. */
  discard(offset: number, length: number): void {
    this.#change();
    this.#clear(offset, Math.min(this.#length, offset + length));
  }

  setLength(length: number): void {
    this.#change();
    if (length < this.#length)
      this.#clear(length, Math.ceil(this.#length / PAGE_BYTES) * PAGE_BYTES);
    this.#length = length;
  }

  /** A hash of content and length; equal for equal files. */
  digest(): string {
    const [high, low] = this.#table.hash();
    return `${this.#length}:${high.toString(36)}:${low.toString(36)}`;
  }

  #change(): void {
    this.#changes += 1;
    if (!this.#alone) this.#table = this.#table.copy();
    this.#alone = true;
  }

  #clear(from: number, to: number): void {
    if (from >= to) return;
    const first = Math.ceil(from / PAGE_BYTES);
    const last = Math.floor(to / PAGE_BYTES);
    if (first > last) {
      this.#clearInPage(from, to);
      return;
    }
    this.#clearInPage(from, first * PAGE_BYTES);
    this.#clearInPage(last * PAGE_BYTES, to);
    this.#table.drop(first, last);
  }

  #clearInPage(from: number, to: number): void {
    const index = Math.floor(from / PAGE_BYTES);
    if (from < to && this.#table.read(index) !== undefined)
      this.#table.write(index).fill(0, from - index * PAGE_BYTES, to - index * PAGE_BYTES);
  }
}
