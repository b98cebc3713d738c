import { seededRandom } from '@downfold/compliance';

/** Choices drawn from a seed: the same seed draws the same choices. */
export interface Draw {
  /** Whole number in [0, below). */
  integer(below: number): number;
  /** Whole number in [least, most]. */
  between(least: number, most: number): number;
  /** True with the given probability. */
  chance(probability: number): boolean;
  pick<T>(items: readonly [T, ...T[]]): T;
}

/** Draws from `seed`. */
export function draw(seed: number): Draw {
  const random = seededRandom(seed);
  const integer = (below: number): number => Math.floor(random() * below);
  return {
    integer,
    between: (least, most) => least + integer(most - least + 1),
    chance: (probability) => random() < probability,
    pick: (items) => items[integer(items.length)] ?? items[0],
  };
}
