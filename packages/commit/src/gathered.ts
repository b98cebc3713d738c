import type { NodeId } from '@downfold/chain';
import type { ImageCopyPiece } from '@downfold/image';
import type { Storage } from '@downfold/storage';
import type { GuestRange, HostOffset } from '@downfold/units';

/** Copies to one image that are to be made in one call. */
export interface GatheredCopies {
  /** Null: there are none. */
  readonly node: NodeId | null;
  readonly pieces: readonly ImageCopyPiece[];
  /** Whose bytes each piece is. */
  readonly owners: readonly NodeId[];
  /** Of all pieces. */
  readonly bytes: number;
}

/** Pieces of one call: what they are made of is garbage soon after, and should not live on until then. */
const MOST_PIECES = 256;

/** Which bytes of the disk go from whom to whom. */
interface Copy {
  readonly from: NodeId;
  readonly to: NodeId;
  readonly range: GuestRange;
}

/** Collects copies until they are worth a call, or go to another image: scattered clusters would take one each. */
export class Gathered {
  #node: NodeId | null = null;
  #pieces: ImageCopyPiece[] = [];
  #owners: NodeId[] = [];
  #bytes = 0;

  /** A copy of bytes that lie at `host` of a file. False when they would be more than `most` with those that are there, or go to another image. */
  add({ from, to, range }: Copy, source: Storage, host: HostOffset, most: number): boolean {
    if (this.#node !== null && (this.#node !== to || this.#pieces.length === MOST_PIECES))
      return false;
    if (this.#bytes + range.length > most) return false;
    this.#node = to;
    this.#pieces.push({ source, from: host, offset: range.offset, length: range.length });
    this.#owners.push(from);
    this.#bytes += range.length;
    return true;
  }

  /** What there is, which is gone from here then. */
  take(): GatheredCopies {
    const taken = {
      node: this.#node,
      pieces: this.#pieces,
      owners: this.#owners,
      bytes: this.#bytes,
    };
    [this.#node, this.#pieces, this.#owners, this.#bytes] = [null, [], [], 0];
    return taken;
  }
}
