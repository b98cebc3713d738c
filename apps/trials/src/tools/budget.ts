/** What one part of the work on a hostile image may cost: reading, checking, writing, repairing. */
export const BUDGET: { readonly milliseconds: number; readonly bytes: number } = {
  milliseconds: 250,
  bytes: 64 << 20,
};
