import { describeSector, readStamp, SECTOR, stamps } from '../device/stamp.ts';

const BLOCK_SECTORS = 9;
/** Bytes of a block: many of them lie across two clusters. */
export const BLOCK: number = BLOCK_SECTORS * SECTOR;

/** From when on a change must be there: once it was answered, or, after a crash, once a flush covered it. */
export type Promised = 'answered' | 'durable';

/** Sequences of one block; each counts one change, and 0 are the zeros of a new disk. */
interface Block {
  issued: number;
  answered: number;
  durable: number;
  /** Sequences that are zeros. */
  readonly zeros: number[];
}

/**
 * What is known of every block of a disk: which changes it was sent, which of them were answered, and which are durable. A change is never sent while
 * another one of the same block is under way.
 */
export class Book {
  /** Bytes of the disk. */
  readonly size: number;
  readonly #blocks: readonly Block[];
  /** Answered, and in no flush that was called since. */
  #unflushed: { readonly block: number; readonly sequence: number }[] = [];

  constructor(blocks: number) {
    this.size = blocks * BLOCK;
    this.#blocks = Array.from({ length: blocks }, () => ({
      issued: 0,
      answered: 0,
      durable: 0,
      zeros: [0],
    }));
  }

  get count(): number {
    return this.#blocks.length;
  }

  /** A block is about to be written: with these bytes. */
  write(block: number): { readonly sequence: number; readonly bytes: Buffer } {
    const sequence = ++this.#at(block).issued;
    return { sequence, bytes: stamps(block * BLOCK_SECTORS, BLOCK_SECTORS, sequence) };
  }

  /** A block is about to be zeroed. */
  zero(block: number): { readonly sequence: number } {
    const known = this.#at(block);
    known.zeros.push(++known.issued);
    return { sequence: known.issued };
  }

  /** A change was answered. */
  answered(block: number, sequence: number, { durable }: { readonly durable: boolean }): void {
    const known = this.#at(block);
    known.answered = sequence;
    if (durable) known.durable = Math.max(known.durable, sequence);
    else this.#unflushed.push({ block, sequence });
  }

  /** A flush is about to be sent; what is returned is called once it was answered. */
  flush(): () => void {
    const covered = this.#unflushed;
    this.#unflushed = [];
    return () => {
      for (const { block, sequence } of covered) {
        const known = this.#at(block);
        known.durable = Math.max(known.durable, sequence);
      }
    };
  }

  /** What is wrong with one block that was read; null: nothing. */
  wrongBlock(block: number, bytes: Uint8Array, promised: Promised): string | null {
    for (let index = 0; index < BLOCK_SECTORS; index++) {
      const sector = bytes.subarray(index * SECTOR, (index + 1) * SECTOR);
      if (this.#sequenceOf(block, index, sector, promised) !== null) continue;
      const { durable, answered, issued } = this.#at(block);
      return `block ${block}, sector ${block * BLOCK_SECTORS + index} is ${describeSector(sector)}; durable is ${durable}, answered ${answered}, sent ${issued}`;
    }
    return null;
  }

  /** What is wrong with the whole disk. */
  wrongIn(disk: Uint8Array, promised: Promised): readonly string[] {
    if (disk.length < this.size) return [`the disk has ${disk.length} bytes, not ${this.size}`];
    const found = this.#blocks.map((_, block) =>
      this.wrongBlock(block, this.#bytesOf(disk, block), promised),
    );
    return found.filter((wrong) => wrong !== null);
  }

  /** After a crash: what is there, and was found right, stays. Nothing is under way. */
  settle(disk: Uint8Array): void {
    this.#unflushed = [];
    for (const [block, known] of this.#blocks.entries()) {
      const bytes = this.#bytesOf(disk, block);
      const sequences = Array.from({ length: BLOCK_SECTORS }, (_, index) => {
        const sector = bytes.subarray(index * SECTOR, (index + 1) * SECTOR);
        return this.#sequenceOf(block, index, sector, 'durable') ?? known.durable;
      });
      known.answered = Math.min(...sequences);
    }
  }

  /** The oldest change that a sector may be of; null: none that is allowed. */
  #sequenceOf(block: number, index: number, bytes: Uint8Array, promised: Promised): number | null {
    const { issued, zeros, [promised]: least } = this.#at(block);
    const found = readStamp(bytes);
    if (found === 'zeros') return zeros.find((sequence) => sequence >= least) ?? null;
    if (found === null || found.sector !== block * BLOCK_SECTORS + index) return null;
    const { sequence } = found;
    return sequence >= least && sequence <= issued && !zeros.includes(sequence) ? sequence : null;
  }

  #bytesOf(disk: Uint8Array, block: number): Uint8Array {
    return disk.subarray(block * BLOCK, (block + 1) * BLOCK);
  }

  #at(block: number): Block {
    return this.#blocks[block] as Block;
  }
}
