import { hostOffset, LARGEST_OFFSET } from '@downfold/units';
import type { FileRun } from './storage.ts';

/** What stands for the runs of a file that does not know its holes: bytes up to its length, and nothing behind them. */
export function bytesTo(length: number, offset: number): FileRun {
  if (offset < length) return { hole: false, end: hostOffset(length) };
  return NOTHING_MORE;
}

/** The hole behind the end of a file. */
export const NOTHING_MORE: FileRun = { hole: true, end: hostOffset(LARGEST_OFFSET) };
