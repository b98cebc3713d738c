import type { NodeId } from '@downfold/chain';

/**
 * What becomes of persistent dirty bitmaps in a commit. `keep`: those of base stay and record what is written to it. `merge`: they get what those of
 * the same name in the committed layers say, and base gets those that it has not. `drop`: base has none afterwards. The layers keep theirs.
 */
export type BitmapsMode = 'merge' | 'keep' | 'drop';

/** What becomes of one bitmap of base. */
export interface BitmapFate {
  readonly name: string;
  /** `inconsistent`: nobody knows what it should say, and it stays so. */
  readonly fate: 'records' | 'merged' | 'created' | 'dropped' | 'inconsistent';
  /** `merged`, `created`: the layers that have one of this name, bottom first. */
  readonly from: readonly NodeId[];
}
