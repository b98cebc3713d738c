import type { OperationOptions } from '@downfold/storage';
import { hostOffset } from '@downfold/units';
import { BARRIER } from './barriers.ts';
import { largestRefcount, refcountAt, setRefcount } from './refcount-codec.ts';
import type { References } from './references.ts';
import type { Qcow2State } from './state.ts';
import { flushFile } from './writer.ts';

/** Raises refcounts to what is counted, or the most that fits, durably (W1: before any flag relies on them). */
export async function raiseRefcounts(
  state: Qcow2State,
  references: References,
  options?: OperationOptions,
): Promise<void> {
  await adjust(state, references, (stored, wanted) => Math.max(stored, wanted), options);
  await flushFile(state, BARRIER.content);
}

/** Lowers refcounts to what is counted, durably (W5: after all that is counted is durable). */
export async function lowerRefcounts(
  state: Qcow2State,
  references: References,
  options?: OperationOptions,
): Promise<void> {
  await adjust(state, references, (stored, wanted) => Math.min(stored, wanted), options);
  await flushFile(state, BARRIER.release);
}

/** Changes refcounts in their blocks, which nothing else shares (W13). */
async function adjust(
  { storage, geometry }: Qcow2State,
  { counted, blocks }: References,
  choose: (stored: number, wanted: number) => number,
  options?: OperationOptions,
): Promise<void> {
  const { clusterSize, refcountsPerBlock, refcountBits } = geometry;
  const most = largestRefcount(refcountBits);
  const bytes = new Uint8Array(clusterSize);
  for (const [index, offset] of blocks.entries()) {
    if (offset === 0) continue;
    await storage.read(hostOffset(offset), bytes, options);
    let changed = false;
    for (let at = 0; at < refcountsPerBlock; at++) {
      const stored = refcountAt(bytes, at, refcountBits);
      const wanted = Math.min(counted.count(index * refcountsPerBlock + at), most);
      const chosen = choose(stored, wanted);
      if (chosen === stored) continue;
      setRefcount(bytes, at, refcountBits, chosen);
      changed = true;
    }
    if (changed)
      await storage.write(hostOffset(offset), bytes, { ...options, what: 'refcount block' });
  }
}
