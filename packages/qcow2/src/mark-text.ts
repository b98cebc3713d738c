import type { ImageMark } from '@downfold/image';

/**
 * Bytes of a mark's text, zeros behind it: fixed, so that it can be replaced in place. Holds a state, a UUID and a date. It is
 * the end of the extension's data; zeros before it keep it within one sector.
 */
export const MARK_BYTES = 88;

/** The text of a mark, `state job date` in ASCII, or of a mark that was taken away; null when it is too long. */
export function encodeMark(mark: ImageMark | null): Uint8Array | null {
  const text = mark === null ? 'none' : `${mark.state} ${mark.job} ${mark.date}`;
  const bytes = new Uint8Array(MARK_BYTES);
  const encoded = new TextEncoder().encode(text);
  if (encoded.length > MARK_BYTES) return null;
  bytes.set(encoded);
  return bytes;
}

/** The mark in an extension's data; null when there is none or it was taken away. */
export function parseMark(data: Uint8Array | undefined): ImageMark | null {
  if (data === undefined) return null;
  const text = new TextDecoder().decode(data.subarray(-MARK_BYTES)).replace(/\0+$/, '');
  const [state, job, date] = text.split(' ');
  if (state === 'none') return null;
  // Whatever else stands there was put there to keep readers away: an unreadable mark is a mark.
  const known = state === 'superseded' || state === 'mixed';
  return { state: known ? state : 'invalid', job: job ?? '', date: date ?? '' };
}
