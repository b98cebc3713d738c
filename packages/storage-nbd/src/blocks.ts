import { alignDown, alignUp } from '@downfold/units';

/** A part of a range that lies in blocks. */
export interface Part {
  readonly offset: number;
  readonly length: number;
  /** It covers every block that it touches. */
  readonly whole: boolean;
}

/** Cuts a range at the ends of blocks: a part of a block, whole blocks, a part of a block; of these, what is not empty. */
export function partsOf(offset: number, length: number, block: number): readonly Part[] {
  const end = offset + length;
  const [first, last] = [alignUp(offset, block), alignDown(end, block)];
  // inside of one block
  if (first > last) return [{ offset, length, whole: false }];
  return [
    { offset, length: first - offset, whole: false },
    { offset: first, length: last - first, whole: true },
    { offset: last, length: end - last, whole: false },
  ].filter((part) => part.length > 0);
}
