import type { NodeId } from '@downfold/chain';
import type { CowSource } from '@downfold/image';
import { type GuestRange, splitRange } from '@downfold/units';
import { CommitError } from './errors.ts';

const PIECE_BYTES = 1 << 20;

/** A range of one image that must read as it does elsewhere. */
export interface Claim {
  readonly node: NodeId;
  readonly range: GuestRange;
  /** Node whose content it must be; null: zeros. */
  readonly from: NodeId | null;
  /**
   * Over this node, null: over nothing, which it will read through to later, it must read as it did when it left the range to what lies below it, and
   * lies there still. Absent: as it is.
   */
  readonly over?: NodeId | null;
}

/** Two readers that must agree, and what errors call them. */
export interface Comparison {
  readonly found: CowSource;
  readonly wanted: CowSource;
  readonly foundName: string;
  readonly wantedName: string;
}

/**
 * Compares two readers over a range.
 * @throws CommitError `COMMIT_VERIFY_FAILED` with the first offset that differs
 */
export async function compareRange(
  { found, wanted, foundName, wantedName }: Comparison,
  range: GuestRange,
  onPiece: (bytes: number) => void,
  signal?: AbortSignal,
): Promise<void> {
  for (const { offset, length } of splitRange(range, PIECE_BYTES)) {
    signal?.throwIfAborted();
    const [mine, theirs] = [Buffer.alloc(length), Buffer.alloc(length)];
    await found(offset, mine);
    await wanted(offset, theirs);
    if (!mine.equals(theirs)) {
      const at = offset + mine.findIndex((byte, index) => byte !== theirs[index]);
      throw new CommitError(
        'COMMIT_VERIFY_FAILED',
        `${foundName} does not read as ${wantedName} at byte ${at}; nothing was relinked`,
        { image: foundName, offset: at },
      );
    }
    onPiece(length);
  }
}

/** Reads as zeros everywhere. */
export const zeros: CowSource = async (_offset, target) => {
  target.fill(0);
};
