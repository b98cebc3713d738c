import type { CowSource } from '../write-options.ts';

/** A prime, so that no two clusters, of whatever size, hold the same bytes. */
const TILE_BYTES = 65_521;

/** Which bytes: of the backing file, or of the n-th write. */
export type Flavour = number;

/** What the backing file holds. */
export const BELOW: Flavour = 0;

const tile = makeTile();

/** Fills `target` with the bytes that `flavour` has at `offset`: fixed, and never 0, so that they are not taken for zeros. */
export function fillContent(target: Uint8Array, offset: number, flavour: Flavour): void {
  let at = (offset + flavour * 7919) % TILE_BYTES;
  for (let done = 0; done < target.length; at = 0) {
    const part = tile.subarray(at, at + target.length - done);
    target.set(part, done);
    done += part.length;
  }
}

/** A backing file of `length` bytes; zeros past its end. */
export function backingFile(length: number): CowSource {
  return async (offset, target) => {
    const inside = Math.max(0, Math.min(target.length, length - offset));
    fillContent(target.subarray(0, inside), offset, BELOW);
    target.fill(0, inside);
  };
}

function makeTile(): Uint8Array {
  const bytes = new Uint8Array(TILE_BYTES);
  let state = 0x2545_f491;
  for (let index = 0; index < TILE_BYTES; index++) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    bytes[index] = 1 + ((state >>> 0) % 255);
  }
  return bytes;
}
