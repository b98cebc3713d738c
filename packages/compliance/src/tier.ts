/** How much is tried: `quick` in seconds, `ci` in minutes, `long` the full counts. */
export type Tier = 'quick' | 'ci' | 'long';

/** The tier of this run, from `DOWNFOLD_TIER`; `quick` when unset. */
export function currentTier(): Tier {
  const value = process.env['DOWNFOLD_TIER'] ?? 'quick';
  if (value === 'quick' || value === 'ci' || value === 'long') return value;
  throw new Error(`DOWNFOLD_TIER is '${value}', not quick, ci or long`);
}

/** The count that belongs to the current tier. */
export function perTier(counts: Readonly<Record<Tier, number>>): number {
  return counts[currentTier()];
}
