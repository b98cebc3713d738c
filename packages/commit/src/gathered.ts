import type { NodeId } from '@downfold/chain';
import type { ImageCopyPiece } from '@downfold/image';
import type { Storage } from '@downfold/storage';
import type { HostOffset } from '@downfold/units';
import type { Claim } from './verify.ts';

/** Copies to one image that are to be made in one call. */
export interface GatheredCopies {
  /** Null: there are none. */
  readonly node: NodeId | null;
  readonly pieces: readonly ImageCopyPiece[];
  readonly claims: readonly Claim[];
  /** Of all pieces. */
  readonly bytes: number;
}

/** Collects copies until they are worth a call, or go to another image: scattered clusters would take one each. */
export class Gathered {
  #node: NodeId | null = null;
  #pieces: ImageCopyPiece[] = [];
  #claims: Claim[] = [];
  #bytes = 0;

  /** A copy of bytes that lie at `host` of a file. False when they would be more than `most` with those that are there, or go to another image. */
  add(claim: Claim, source: Storage, host: HostOffset, most: number): boolean {
    const { node: to, range } = claim;
    if (this.#bytes + range.length > most || (this.#node !== null && this.#node !== to))
      return false;
    this.#node = to;
    this.#pieces.push({ source, from: host, offset: range.offset, length: range.length });
    this.#claims.push(claim);
    this.#bytes += range.length;
    return true;
  }

  /** What there is, which is gone from here then. */
  take(): GatheredCopies {
    const taken = {
      node: this.#node,
      pieces: this.#pieces,
      claims: this.#claims,
      bytes: this.#bytes,
    };
    [this.#node, this.#pieces, this.#claims, this.#bytes] = [null, [], [], 0];
    return taken;
  }
}
