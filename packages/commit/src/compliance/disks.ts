import { type Cell, contentOf, isData, UNALLOCATED } from './cells.ts';

/** What was written aside for one image. */
export interface Staged {
  readonly cells: Uint16Array;
  size: number;
}

/** The state of all images of a setting, by index: what a disk holds, or what memory shows. Sizes in sectors. */
export class Disks {
  /** Sectors of the longest image: what each image has in `cells`. */
  readonly width: number;
  readonly cells: Uint16Array;
  readonly sizes: Uint8Array;
  /** Index of the backing file; -1: none. */
  readonly links: Int8Array;
  /** 1: marked as meaning nothing. */
  readonly marks: Uint8Array;
  /** 1: what was staged has become the image's own. */
  readonly published: Uint8Array;
  readonly staged: (Staged | null)[];

  constructor(width: number, count: number) {
    this.width = width;
    this.cells = new Uint16Array(width * count);
    this.sizes = new Uint8Array(count);
    this.links = new Int8Array(count).fill(-1);
    this.marks = new Uint8Array(count);
    this.published = new Uint8Array(count);
    this.staged = new Array<Staged | null>(count).fill(null);
  }

  copy(): Disks {
    const { width, staged } = this;
    const copy = new Disks(width, staged.length);
    copy.cells.set(this.cells);
    copy.sizes.set(this.sizes);
    copy.links.set(this.links);
    copy.marks.set(this.marks);
    copy.published.set(this.published);
    for (const [image, aside] of staged.entries())
      if (aside !== null) copy.staged[image] = { cells: aside.cells.slice(), size: aside.size };
    return copy;
  }

  /** Equal for equal states. */
  key(): string {
    const parts: number[] = [...this.cells, ...this.sizes, ...this.marks, ...this.published];
    for (const link of this.links) parts.push(link + 1);
    for (const aside of this.staged)
      if (aside === null) parts.push(0xffff);
      else parts.push(aside.size, ...aside.cells);
    return String.fromCharCode(...parts);
  }

  cell(image: number, sector: number): Cell {
    return this.cells[image * this.width + sector] as Cell;
  }

  /** The content that an image shows at a sector, through the links; 0 past its end. */
  shows(image: number, sector: number): number {
    for (let at = image; at >= 0; at = this.links[at] as number) {
      if (sector >= (this.sizes[at] as number)) return 0;
      const cell = this.cell(at, sector);
      if (cell !== UNALLOCATED) return contentOf(cell);
    }
    return 0;
  }

  /** The cells and size that writes to an image go to: what is staged on it, or its own. */
  target(image: number, staged: boolean): { readonly cells: Uint16Array; readonly size: number } {
    const aside = this.staged[image];
    if (staged && aside != null) return aside;
    const from = image * this.width;
    return {
      cells: this.cells.subarray(from, from + this.width),
      size: this.sizes[image] as number,
    };
  }

  /** Applies one write; `Write`. */
  apply({ image, staged, start, cells, inPlace }: Write): void {
    const target = this.target(image, staged).cells;
    if (inPlace && !isData(target[start] as Cell)) return;
    target.set(cells, start);
  }
}

/** The least that a crash keeps or loses of what was written. */
export interface Write {
  readonly image: number;
  /** Into what is staged on the image. */
  readonly staged: boolean;
  readonly start: number;
  readonly cells: readonly Cell[];
  /** A sector within a unit of data: without that unit it comes to nothing. */
  readonly inPlace: boolean;
}
