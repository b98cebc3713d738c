// Offsets exceed 32 bits, so bit operators are not used on them: `%` and division are exact up to 2^53.

/** Largest multiple of `alignment` that is <= `value`. */
export function alignDown<N extends number>(value: N, alignment: number): N {
  return (value - (value % alignment)) as N;
}

/** Smallest multiple of `alignment` that is >= `value`. */
export function alignUp<N extends number>(value: N, alignment: number): N {
  const over = value % alignment;
  return (over === 0 ? value : value - over + alignment) as N;
}

/** How many pieces of `size` cover `value`. */
export function ceilDivide(value: number, size: number): number {
  return Math.ceil(value / size);
}

/** Whether `value` is 1, 2, 4, 8, ... */
export function isPowerOfTwo(value: number): boolean {
  return Number.isSafeInteger(value) && value > 0 && Number.isInteger(Math.log2(value));
}
