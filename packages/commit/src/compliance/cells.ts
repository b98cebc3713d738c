/**
 * What one image says of one sector, as a number: unallocated, zeros, or data with a content. Contents are small whole numbers;
 * 0 is the content of a sector of zeros.
 */
export type Cell = number;

export const UNALLOCATED: Cell = 0;
export const ZERO: Cell = 1;
/** Zeros with host space reserved, whose content is not used. */
export const RESERVED: Cell = 2;
const DATA = 0x100;
const COMPRESSED = 0x200;

/** A sector of data with this content. */
export function dataCell(content: number): Cell {
  return DATA + content;
}

/** Whether the cell is data, plain or compressed. */
export function isData(cell: Cell): boolean {
  return cell >= DATA;
}

/** Whether the cell is data that lies in the file as it is. */
export function isPlain(cell: Cell): boolean {
  return cell >= DATA && cell < COMPRESSED;
}

/** What a cell that is not unallocated reads as. */
export function contentOf(cell: Cell): number {
  return cell >= DATA ? cell % DATA : 0;
}

/** The letters in which settings are written down. */
type Letter = '-' | 'c' | 'd' | 'o' | 'p' | 's' | 'z';

/**
 * The cell that a letter stands for, in the image at `image` of a setting: `-` unallocated, `z` zeros, `p` zeros with space reserved, `d` data
 * of its own, `c` the same compressed, `s` data that is the same in every image, `o` data that is all zeros.
 */
export function cellOf(letter: string, image: number, sector: number): Cell {
  const own = 16 + 12 * sector + image;
  switch (letter as Letter) {
    case '-':
      return UNALLOCATED;
    case 'z':
      return ZERO;
    case 'p':
      return RESERVED;
    case 'd':
      return DATA + own;
    case 'c':
      return COMPRESSED + own;
    case 's':
      return DATA + 1 + sector;
    case 'o':
      return DATA;
  }
}
