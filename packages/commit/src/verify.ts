import { type ChainLayer, subchainExtents, viewOf } from '@downfold/chain';
import { guestOffset, rangeBetween, splitRange } from '@downfold/units';
import { CommitError } from './errors.ts';
import type { RunOptions } from './parts.ts';
import type { CommitPlan } from './plan.ts';

const PIECE_BYTES = 1 << 20;

/**
 * Reads everything that was committed through base and through top and compares. What no layer above base decides is the same bytes by
 * definition and is not read. @throws CommitError `COMMIT_VERIFY_FAILED` with the first offset that differs
 */
export async function verifyCommit(
  chain: readonly ChainLayer[],
  plan: CommitPlan,
  { signal, onProgress }: RunOptions,
): Promise<void> {
  const base = chain.findIndex(({ facts }) => facts.node === plan.request.base);
  const top = chain.findIndex(({ facts }) => facts.node === plan.request.top);
  const [ofBase, ofTop] = [viewOf(chain, base), viewOf(chain, top)];
  const range = rangeBetween(guestOffset(0), (chain[top] as ChainLayer).image.geometry.virtualSize);
  const total = plan.bytesToCopy + plan.bytesToZero;
  let done = 0;
  for await (const batch of subchainExtents(chain, { base, top }, range, { signal })) {
    for (const extent of batch) {
      if (extent.owner === null) continue;
      for (const piece of splitRange(extent, PIECE_BYTES)) {
        signal?.throwIfAborted();
        const [mine, theirs] = [Buffer.alloc(piece.length), Buffer.alloc(piece.length)];
        await ofBase(piece.offset, mine);
        await ofTop(piece.offset, theirs);
        if (!mine.equals(theirs)) throw differs(chain, { base, top }, piece.offset, mine, theirs);
        done += piece.length;
        onProgress?.({ phase: 'verify', done, total });
      }
    }
  }
}

function differs(
  chain: readonly ChainLayer[],
  { base, top }: { base: number; top: number },
  offset: number,
  mine: Uint8Array,
  theirs: Uint8Array,
): CommitError {
  const at = offset + mine.findIndex((byte, index) => byte !== theirs[index]);
  const [baseName, topName] = [base, top].map((index) => (chain[index] as ChainLayer).facts.path);
  return new CommitError(
    'COMMIT_VERIFY_FAILED',
    `${baseName} does not read as ${topName} at byte ${at}; nothing was relinked`,
    { image: baseName ?? '', offset: at },
  );
}
