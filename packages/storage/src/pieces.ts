import { byteLength, hostOffset } from '@downfold/units';
import type { CopyPiece } from './storage.ts';

/** What is left of pieces when their first `bytes` are done; none is empty. */
export function piecesAfter<Source>(
  pieces: readonly CopyPiece<Source>[],
  bytes: number,
): readonly CopyPiece<Source>[] {
  let [next, done] = [0, bytes];
  for (let piece = pieces[0]; piece !== undefined && piece.length <= done; piece = pieces[next]) {
    done -= piece.length;
    next += 1;
  }
  const left = pieces.slice(next).filter(({ length }) => length > 0);
  const cut = left[0];
  if (cut === undefined || done === 0) return left;
  left[0] = {
    source: cut.source,
    from: hostOffset(cut.from + done),
    to: hostOffset(cut.to + done),
    length: byteLength(cut.length - done),
  };
  return left;
}

/** The first `bytes` of pieces, at most. */
export function piecesUpTo<Source>(
  pieces: readonly CopyPiece<Source>[],
  bytes: number,
): readonly CopyPiece<Source>[] {
  const first: CopyPiece<Source>[] = [];
  let left = bytes;
  for (const piece of pieces) {
    if (left === 0) break;
    const length = byteLength(Math.min(left, piece.length));
    first.push({ ...piece, length });
    left -= length;
  }
  return first;
}

/** Bytes of all pieces. */
export function bytesOfPieces(pieces: readonly { readonly length: number }[]): number {
  return pieces.reduce((sum, { length }) => sum + length, 0);
}
