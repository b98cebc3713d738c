import { crc32 } from 'node:zlib';

const PAGE_BYTES = 4096;

/**
 * The bytes of one file, in pages that exist only where something was written. Copies share pages until one of them writes,
 * so that thousands of crash states of a file cost little more than what differs.
 */
export class MemoryFile {
  #pages: Map<number, Uint8Array>;
  /** Pages that no copy shares. */
  #owned: Set<number> = new Set();
  #length: number;

  constructor(pages: Map<number, Uint8Array> = new Map(), length = 0) {
    this.#pages = pages;
    this.#length = length;
  }

  get length(): number {
    return this.#length;
  }

  /** Bytes that pages hold. */
  get allocated(): number {
    return this.#pages.size * PAGE_BYTES;
  }

  /** An independent file with the same bytes. */
  copy(): MemoryFile {
    this.#owned = new Set();
    return new MemoryFile(new Map(this.#pages), this.#length);
  }

  /** Reads until `target` is full or the file ends; returns the bytes read. */
  read(offset: number, target: Uint8Array): number {
    const end = Math.min(this.#length, offset + target.length);
    for (let at = offset; at < end; ) {
      const inside = at % PAGE_BYTES;
      const count = Math.min(PAGE_BYTES - inside, end - at);
      const page = this.#pages.get((at - inside) / PAGE_BYTES);
      if (page === undefined) target.fill(0, at - offset, at - offset + count);
      else target.set(page.subarray(inside, inside + count), at - offset);
      at += count;
    }
    return Math.max(0, end - offset);
  }

  write(offset: number, source: Uint8Array): void {
    for (let done = 0; done < source.length; ) {
      const inside = (offset + done) % PAGE_BYTES;
      const part = source.subarray(done, done + PAGE_BYTES - inside);
      this.#ownPage((offset + done - inside) / PAGE_BYTES).set(part, inside);
      done += part.length;
    }
    this.#length = Math.max(this.#length, offset + source.length);
  }

  /** The range reads as zeros; the file grows when it ends inside. */
  zero(offset: number, length: number): void {
    this.#clear(offset, offset + length);
    this.#length = Math.max(this.#length, offset + length);
  }

  setLength(length: number): void {
    if (length < this.#length)
      this.#clear(length, Math.ceil(this.#length / PAGE_BYTES) * PAGE_BYTES);
    this.#length = length;
  }

  /** A hash of content and length; equal for equal files. */
  digest(): string {
    const parts: string[] = [];
    for (const [index, page] of [...this.#pages].sort((a, b) => a[0] - b[0])) {
      const hash = pageHash(page);
      if (hash !== ZERO_PAGE_HASH) parts.push(`${index}:${hash}`);
    }
    return `${this.#length}|${parts.join(',')}`;
  }

  #clear(from: number, to: number): void {
    const first = Math.ceil(from / PAGE_BYTES);
    const last = Math.floor(to / PAGE_BYTES);
    if (first > last) {
      this.#clearInPage(from, to);
      return;
    }
    this.#clearInPage(from, first * PAGE_BYTES);
    this.#clearInPage(last * PAGE_BYTES, to);
    if (last - first < this.#pages.size)
      for (let page = first; page < last; page++) this.#pages.delete(page);
    else
      for (const page of [...this.#pages.keys()])
        if (page >= first && page < last) this.#pages.delete(page);
  }

  #clearInPage(from: number, to: number): void {
    const index = Math.floor(from / PAGE_BYTES);
    if (from < to && this.#pages.has(index))
      this.#ownPage(index).fill(0, from - index * PAGE_BYTES, to - index * PAGE_BYTES);
  }

  #ownPage(index: number): Uint8Array {
    const page = this.#pages.get(index);
    if (page !== undefined && this.#owned.has(index)) {
      hashes.delete(page);
      return page;
    }
    const own = page?.slice() ?? new Uint8Array(PAGE_BYTES);
    this.#pages.set(index, own);
    this.#owned.add(index);
    return own;
  }
}

const hashes = new WeakMap<Uint8Array, number>();
const ZERO_PAGE_HASH = crc32(new Uint8Array(PAGE_BYTES));

function pageHash(page: Uint8Array): number {
  let hash = hashes.get(page);
  if (hash === undefined) {
    hash = crc32(page);
    hashes.set(page, hash);
  }
  return hash;
}
