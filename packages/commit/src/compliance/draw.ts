import { seededRandom } from '@downfold/compliance';

/** Choices drawn from a seed. */
export class Draw {
  readonly #random: () => number;

  constructor(seed: number) {
    this.#random = seededRandom(seed);
  }

  /** One of 0 .. below-1. */
  below(below: number): number {
    return Math.floor(this.#random() * below);
  }

  /** True once in `times`. */
  once(times: number): boolean {
    return this.below(times) === 0;
  }

  of<T>(items: readonly T[]): T {
    return items[this.below(items.length)] as T;
  }
}
