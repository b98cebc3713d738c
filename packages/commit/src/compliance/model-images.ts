import {
  type Cell,
  contentOf,
  dataCell,
  isData,
  isPlain,
  RESERVED,
  UNALLOCATED,
  ZERO,
} from './cells.ts';
import type { Disks } from './disks.ts';
import type { Durability } from './durability.ts';
import type { Pool } from './pool.ts';
import { SECTOR_BYTES } from './setting.ts';
import { Violation } from './violation.ts';
import type { Window } from './window.ts';

/** A part of an image, in sectors, that is written to. */
export interface Place {
  readonly image: number;
  /** The image itself, or what is staged on it. */
  readonly row: number;
  readonly start: number;
  readonly end: number;
}

/** What formats do with writes: whole units change their status, others are completed. */
export class ModelImages {
  /** Bytes written to each image, and given back by it. */
  readonly written: number[];
  readonly freed: number[];
  readonly #pool: Pool;
  readonly #disks: Durability;

  constructor(pool: Pool, disks: Durability) {
    this.#pool = pool;
    this.#disks = disks;
    this.written = pool.facts.map(() => 0);
    this.freed = pool.facts.map(() => 0);
  }

  /** Data; units that it covers in part, and that hold none, are completed with what lies below. */
  write(place: Place, contents: readonly number[], window: Window): void {
    const { image, row, start, end } = place;
    window.writes(image, start, end);
    for (const [from, to] of this.#units(place)) {
      if (isPlain(this.#cell(place, from)))
        for (let sector = Math.max(start, from); sector < Math.min(end, to); sector++)
          this.#put({ image, row, start: sector, end: sector + 1 }, true, [
            dataCell(contents[sector - start] as number),
          ]);
      else {
        const cells: Cell[] = [];
        for (let sector = from; sector < to; sector++) {
          const given = sector < start ? undefined : contents[sector - start];
          cells.push(dataCell(given ?? this.#beside(place, sector, window)));
        }
        this.#put({ image, row, start: from, end: to }, false, cells);
      }
    }
  }

  /** Zeros, by status where whole units are covered and the format can. */
  writeZeros(place: Place, window: Window): void {
    const { image, row, start, end } = place;
    const { flat } = this.#pool.image(image);
    for (const [from, to] of this.#units(place)) {
      const first = this.#cell(place, from);
      const part = { image, row, start: Math.max(start, from), end: Math.min(end, to) };
      const zeros = first === RESERVED ? RESERVED : ZERO;
      if (!flat && part.start === from && part.end === to) {
        window.writes(image, from, to);
        this.#put(part, false, new Array<Cell>(to - from).fill(zeros));
      } else if (first === zeros) window.writes(image, part.start, part.end);
      else this.write(part, new Array<number>(part.end - part.start).fill(0), window);
    }
  }

  /** Units that lie wholly in the range become unallocated. */
  deallocate(place: Place): void {
    const { image, start, end } = place;
    for (const [from, to] of this.#units(place)) {
      if (from < start || to > end) continue;
      if (this.#cell(place, from) > ZERO)
        this.freed[image] = this.#sum(this.freed, image, to - from);
      this.#put(
        { ...place, start: from, end: to },
        false,
        new Array<Cell>(to - from).fill(UNALLOCATED),
      );
    }
  }

  /** A reference or a mark: a sector. */
  changeHeader(image: number): void {
    this.written[image] = this.#sum(this.written, image, 1);
  }

  /** Gives an image, or what is staged on it, `to` sectors; new ones read as zeros whatever lies below. */
  grow(disks: Disks, image: number, row: number, to: number): void {
    const { unit, flat } = this.#pool.image(image);
    const [from, below] = [disks.size(row), disks.link(image)];
    const start = from - (from % unit);
    const cut = start === from ? UNALLOCATED : disks.cell(row, start);
    const completed = start < from && (isData(cut) || (cut === UNALLOCATED && below >= 0));
    const whole = flat ? dataCell(0) : below >= 0 ? ZERO : UNALLOCATED;
    const grown = (sector: number): Cell => {
      if (sector >= start + unit || start === from) return whole;
      if (!completed) return cut;
      if (sector >= from) return dataCell(0);
      return dataCell(
        isData(cut) ? contentOf(disks.cell(row, sector)) : disks.shows(below, sector),
      );
    };
    for (let sector = start; sector < to; sector++) disks.setCell(row, sector, grown(sector));
    disks.setSize(row, to);
  }

  #cell({ row }: Place, sector: number): Cell {
    return this.#disks.now.cell(row, sector);
  }

  /** What a sector reads as whose unit is completed by a write beside it. */
  #beside(place: Place, sector: number, window: Window): number {
    const { now } = this.#disks;
    const cell = this.#cell(place, sector);
    if (cell !== UNALLOCATED) return contentOf(cell);
    const below = now.link(place.image);
    for (let at = below; at >= 0; at = now.link(at)) window.reads(at, sector, sector + 1);
    return below < 0 ? 0 : now.shows(below, sector);
  }

  #put({ image, row, start }: Place, inPlace: boolean, cells: readonly Cell[]): void {
    this.written[image] = this.#sum(this.written, image, cells.filter(isData).length);
    const { now } = this.#disks;
    if (cells.every((cell, index) => now.cell(row, start + index) === cell)) return;
    this.#disks.write({ image, row, start, cells, inPlace });
  }

  #sum(bytes: readonly number[], image: number, sectors: number): number {
    return (bytes[image] as number) + sectors * SECTOR_BYTES;
  }

  /** The units that a range touches, the last one cut by the end of the disk. @throws Violation past the end */
  #units({ image, row, start, end }: Place): readonly (readonly [number, number])[] {
    const size = this.#disks.now.size(row);
    if (end > size)
      throw new Violation(
        'steps/within-the-disks',
        `sector ${end - 1} of ${this.#pool.nodeOf(image)}, which has ${size}`,
      );
    const { unit } = this.#pool.image(image);
    const units: [number, number][] = [];
    for (let from = start - (start % unit); from < end; from += unit)
      units.push([from, Math.min(size, from + unit)]);
    return units;
  }
}
