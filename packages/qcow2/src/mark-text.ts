import type { ImageMark } from '@downfold/image';

/** The data of the mark extension: `state job date`, separated by spaces, in ASCII. */
export function encodeMark(mark: ImageMark): Uint8Array {
  return new TextEncoder().encode(`${mark.state} ${mark.job} ${mark.date}`);
}

/** The mark in an extension's data; null when there is none or it was taken away. */
export function parseMark(data: Uint8Array | undefined): ImageMark | null {
  if (data === undefined) return null;
  const [state, job, date] = new TextDecoder().decode(data).replace(/\0+$/, '').split(' ');
  if (state === 'none') return null;
  // Whatever else stands there was put there to keep readers away: an unreadable mark is a mark.
  const known = state === 'superseded' || state === 'mixed';
  return { state: known ? state : 'invalid', job: job ?? '', date: date ?? '' };
}
