import { type Cell, contentOf, isData, UNALLOCATED } from './cells.ts';

/** What follows an image's cells in its row. */
const SIZE = 0;
const LINK = 1;
const MARK = 2;
/** Of an image: what was staged on it was published. Of what is staged: there is something. */
const STATE = 3;
const FIELDS = 4;

/**
 * The state of all images of a setting: what a disk holds, or what memory shows. Each image is a row, by index; what is staged on it
 * is another one (`aside`). Sizes in sectors.
 */
export class Disks {
  readonly count: number;
  readonly #width: number;
  readonly #rows: Uint16Array;

  /** `width`: sectors of the longest image. */
  constructor(width: number, count: number, rows?: Uint16Array) {
    this.#width = width;
    this.count = count;
    this.#rows = rows ?? new Uint16Array(2 * count * (width + FIELDS));
  }

  copy(): Disks {
    return new Disks(this.#width, this.count, this.#rows.slice());
  }

  /** Equal for equal states. */
  key(): string {
    return String.fromCharCode.apply(null, this.#rows as unknown as number[]);
  }

  /** Whether an image is in every respect as it is in another state. */
  isSame(image: number, other: Disks): boolean {
    const length = this.#width + FIELDS;
    for (let at = image * length; at < (image + 1) * length; at++)
      if (this.#rows[at] !== other.#rows[at]) return false;
    return true;
  }

  /** The row of what is staged on an image. */
  aside(image: number): number {
    return image + this.count;
  }

  cell(row: number, sector: number): Cell {
    return this.#rows[row * (this.#width + FIELDS) + sector] as Cell;
  }

  setCell(row: number, sector: number, cell: Cell): void {
    this.#rows[row * (this.#width + FIELDS) + sector] = cell;
  }

  size(row: number): number {
    return this.#get(row, SIZE);
  }

  setSize(row: number, size: number): void {
    this.#set(row, SIZE, size);
  }

  /** Index of the backing file; -1: none. */
  link(image: number): number {
    return this.#get(image, LINK) - 1;
  }

  setLink(image: number, backing: number): void {
    this.#set(image, LINK, backing + 1);
  }

  isMarked(image: number): boolean {
    return this.#get(image, MARK) === 1;
  }

  /** From now on the image means nothing. */
  mark(image: number): void {
    this.#set(image, MARK, 1);
  }

  isPublished(image: number): boolean {
    return this.#get(image, STATE) === 1;
  }

  hasStaging(image: number): boolean {
    return this.#get(this.aside(image), STATE) === 1;
  }

  /** Puts aside what the image holds, to be changed there. */
  stage(image: number): void {
    this.#copyRow(image, this.aside(image));
    this.#set(this.aside(image), STATE, 1);
  }

  /** The image holds what was staged. */
  publish(image: number): void {
    const [link, mark] = [this.link(image), this.#get(image, MARK)];
    this.#copyRow(this.aside(image), image);
    this.setLink(image, link);
    this.#set(image, MARK, mark);
    this.#set(image, STATE, 1);
    this.dropStaging(image);
  }

  dropStaging(image: number): void {
    const from = this.aside(image) * (this.#width + FIELDS);
    this.#rows.fill(0, from, from + this.#width + FIELDS);
  }

  /** The content that an image shows at a sector, through the links; 0 past its end. */
  shows(image: number, sector: number): number {
    for (let at = image; at >= 0; at = this.link(at)) {
      if (sector >= this.size(at)) return 0;
      const cell = this.cell(at, sector);
      if (cell !== UNALLOCATED) return contentOf(cell);
    }
    return 0;
  }

  /** All that an image shows. */
  shown(image: number): readonly number[] {
    const shown: number[] = [];
    for (let sector = 0; sector < this.size(image); sector++) shown.push(this.shows(image, sector));
    return shown;
  }

  apply({ row, start, cells, inPlace }: Write): void {
    if (inPlace && !isData(this.cell(row, start))) return;
    for (const [index, cell] of cells.entries()) this.setCell(row, start + index, cell);
  }

  #get(row: number, field: number): number {
    return this.#rows[row * (this.#width + FIELDS) + this.#width + field] as number;
  }

  #set(row: number, field: number, value: number): void {
    this.#rows[row * (this.#width + FIELDS) + this.#width + field] = value;
  }

  #copyRow(from: number, to: number): void {
    const length = this.#width + FIELDS;
    this.#rows.copyWithin(to * length, from * length, (from + 1) * length);
  }
}

/** The least that a crash keeps or loses of what was written. */
export interface Write {
  readonly image: number;
  /** The image itself, or what is staged on it. */
  readonly row: number;
  readonly start: number;
  readonly cells: readonly Cell[];
  /** A sector within a unit of data: without that unit it comes to nothing. */
  readonly inPlace: boolean;
}
