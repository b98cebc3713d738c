/** Upper bounds in seconds: from what memory takes to what makes a guest's kernel complain. */
const BOUNDS: readonly number[] = [
  0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10,
];

/** How often something took how long. Observing it makes no object. */
export class Distribution {
  /** One for each bound, and one for what took longer. */
  readonly #counts = new Float64Array(BOUNDS.length + 1);
  /** In an array, too: a property that is no whole number may be an object of its own. */
  readonly #sum = new Float64Array(1);

  /** @param count how often */
  observe(seconds: number, count = 1): void {
    let bucket = 0;
    while (seconds > (BOUNDS[bucket] ?? Number.POSITIVE_INFINITY)) bucket += 1;
    this.#counts[bucket] = (this.#counts[bucket] ?? 0) + count;
    this.#sum[0] = this.sum + seconds * count;
  }

  /** Seconds. */
  get sum(): number {
    return this.#sum[0] ?? 0;
  }

  /** How often something took no longer than each bound; the last one is all. */
  cumulated(): readonly (readonly [bound: number, count: number])[] {
    let count = 0;
    return [...BOUNDS, Number.POSITIVE_INFINITY].map((bound, bucket) => {
      count += this.#counts[bucket] ?? 0;
      return [bound, count];
    });
  }
}
