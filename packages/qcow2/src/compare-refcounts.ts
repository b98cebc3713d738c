import type { OperationOptions } from '@downfold/storage';
import { hostOffset } from '@downfold/units';
import { CHUNK_CLUSTERS, COUNT, type HostCounts, USE } from './host-counts.ts';
import { refcountAt } from './refcount-codec.ts';
import type { References } from './references.ts';
import type { Qcow2State } from './state.ts';
import { halfWordsOf, usedWords } from './words.ts';

/** What is wrong with the refcount of a cluster; only while it is being told: the next one is told in the same object. */
export interface Difference {
  readonly cluster: number;
  /** The refcount in the image. */
  readonly stored: number;
  readonly counted: number;
  /** Entries of the active mapping refer to it with the copied flag; without. */
  readonly copied: boolean;
  readonly shared: boolean;
}

type Differs = (difference: Difference) => void;

/**
 * Whether a copied flag says that this refcount is one and it is not, or the other way round. Of more references than a refcount can say, `most`, no
 * flag is right.
 */
export function wrongFlag(
  refcount: number,
  { counted, copied, shared }: Difference,
  most: number,
): boolean {
  if (counted > most) return false;
  return refcount === 1 ? shared : copied;
}

/**
 * Reads all refcount blocks and calls `differs` for each cluster whose refcount is not the references to it, or whose copied
 * flags say that it is (not) one. Resolves with the first byte after the last cluster in use.
 */
export async function compareRefcounts(
  state: Qcow2State,
  { counted, blocks }: Pick<References, 'counted' | 'blocks'>,
  differs: Differs,
  options?: OperationOptions,
): Promise<number> {
  const { clusterSize, refcountsPerBlock, refcountBits } = state.geometry;
  const step = Math.min(refcountsPerBlock, CHUNK_CLUSTERS);
  const none = new Uint16Array(step);
  const bytes = new Uint8Array(clusterSize);
  let last = -1;
  for (const [index, offset] of blocks.entries()) {
    if (offset === 0) continue;
    await state.storage.read(hostOffset(offset), bytes, options);
    const stored = decode(bytes, refcountsPerBlock, refcountBits);
    for (let first = 0; first < refcountsPerBlock; first += step) {
      const part = stored.subarray(first, first + step);
      const end = compareSome(part, counted, index * refcountsPerBlock + first, differs);
      last = Math.max(last, end);
    }
  }
  for (const chunk of counted.chunks.keys())
    for (let first = chunk * CHUNK_CLUSTERS; first < (chunk + 1) * CHUNK_CLUSTERS; first += step)
      if (!blocks[Math.floor(first / refcountsPerBlock)])
        last = Math.max(last, compareSome(none, counted, first, differs));
  return (last + 1) * clusterSize;
}

type Refcounts = Uint16Array | Float64Array;

function decode(block: Uint8Array, count: number, bits: number): Refcounts {
  if (bits === 16) return halfWordsOf(block);
  const stored = new Float64Array(count);
  for (let index = 0; index < count; index++) stored[index] = refcountAt(block, index, bits);
  return stored;
}

/** Compares clusters from `first` on, all in one chunk; returns the last one that is in use, or -1. A hostile block has a million differences: no object for each. */
function compareSome(
  stored: Refcounts,
  counted: HostCounts,
  first: number,
  differs: Differs,
): number {
  const chunk = counted.chunks.get(Math.floor(first / CHUNK_CLUSTERS));
  const base = first % CHUNK_CLUSTERS;
  const present = chunk?.subarray(base, base + stored.length);
  const end = Math.max(usedWords(stored), present === undefined ? 0 : usedWords(present));
  const difference = { cluster: 0, stored: 0, counted: 0, copied: false, shared: false };
  let last = -1;
  for (let at = 0; at < end; at++) {
    const count = stored[at] as number;
    const said = present === undefined ? 0 : (present[at] as number);
    if (count === 0 && said === 0) continue;
    last = first + at;
    const wrongFlag = said & (count === 1 ? USE.shared : USE.copied);
    const few = said & COUNT;
    const references = few === COUNT ? counted.count(last) : few;
    if (wrongFlag === 0 && count === references) continue;
    difference.cluster = last;
    difference.stored = count;
    difference.counted = references;
    difference.copied = (said & USE.copied) !== 0;
    difference.shared = (said & USE.shared) !== 0;
    differs(difference);
  }
  return last;
}
