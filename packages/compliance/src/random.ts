import type { CaseContext } from './cases.ts';

/** Mulberry32: small, seeded, good enough to choose test cases; never for secrets. */
export function seededRandom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 0x1_0000_0000;
  };
}

/** The context of a case that runs with `seed`. */
export function caseContext(seed: number): CaseContext {
  const random = seededRandom(seed);
  const integer = (below: number): number => Math.floor(random() * below);
  return {
    seed,
    random,
    integer,
    bytes: (length) => {
      const bytes = new Uint8Array(length);
      for (let at = 0; at < length; at++) bytes[at] = integer(256);
      return bytes;
    },
  };
}
