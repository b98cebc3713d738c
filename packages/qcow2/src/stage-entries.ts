import { HIGH_COPIED, LOW_ZERO } from './structures.ts';

/**
 * Entries that a staging has from the image's own table, `lower`, refer to clusters that the image still uses. In memory they
 * have no copied flag, so that a write moves them to fresh clusters, as it does with what a snapshot shares; in the file they
 * have the flag that `lower` gives them, for it is right from the publish on.
 */

/** Whether the entries at word `at` of two L2 tables, or two L1 tables, refer to the same host clusters. */
export function sameHost(words: Uint32Array, lower: Uint32Array, at: number): boolean {
  const [high, low] = [words[at] ?? 0, words[at + 1] ?? 0];
  const [lowerHigh, lowerLow] = [lower[at] ?? 0, lower[at + 1] ?? 0];
  // all but the copied and the zero flag
  return ((high ^ lowerHigh) & ~HIGH_COPIED) === 0 && ((low ^ lowerLow) & ~LOW_ZERO) === 0;
}

/** Whether the L2 entries at word `at` say the same of a cluster, but for the copied flag, which is about its refcount. */
export function sameEntry(a: Uint32Array, b: Uint32Array, at: number, entryWords: number): boolean {
  if ((((a[at] ?? 0) ^ (b[at] ?? 0)) & ~HIGH_COPIED) !== 0) return false;
  for (let word = at + 1; word < at + entryWords; word++)
    if ((a[word] ?? 0) !== (b[word] ?? 0)) return false;
  return true;
}

/** Takes the copied flag from the entries of `words` that refer to what `lower` refers to. */
export function disown(words: Uint32Array, lower: Uint32Array, entryWords: number): void {
  for (let at = 0; at < words.length; at += entryWords)
    if (sameHost(words, lower, at)) words[at] = (words[at] as number) & ~HIGH_COPIED;
}

/** The words as the file holds them; `lower` is null for tables that inherited nothing. */
export function asStored(
  words: Uint32Array,
  lower: Uint32Array | null,
  entryWords: number,
): Uint32Array {
  if (lower === null) return words;
  const stored = words.slice();
  for (let at = 0; at < words.length; at += entryWords)
    if (sameHost(words, lower, at))
      stored[at] = (stored[at] as number) | ((lower[at] ?? 0) & HIGH_COPIED);
  return stored;
}
