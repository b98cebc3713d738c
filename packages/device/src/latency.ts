/** Means are of about so many requests. */
const MEMORY = 128;
/** Milliseconds: who asked for nothing so long does not use the disk. */
const QUIET = 500;

/** When a request began, and what jobs did then. */
export interface Begun {
  readonly at: number;
  readonly changes: number;
}

/**
 * How long requests of the guest take, as root mean squares: a few slow ones count as they are felt. Those during which a job's work ran or
 * changed count beside all; what the others show is how the disk is without a job.
 */
export class Latency {
  readonly #now: () => number;
  readonly #calm = new Mean();
  readonly #all = new Mean();
  #working = 0;
  /** How often a job's work began or rested. */
  #changes = 0;
  #last = Number.NEGATIVE_INFINITY;

  constructor(now: () => number) {
    this.#now = now;
  }

  /** A request begins; `end` when it is over. */
  begin(): Begun {
    return { at: this.#now(), changes: this.#changes };
  }

  end({ at, changes }: Begun): void {
    const now = this.#now();
    const square = (now - at) ** 2;
    const isCalm = this.#working === 0 && changes === this.#changes;
    if (isCalm) this.#calm.add(square);
    this.#all.add(square);
    this.#last = now;
  }

  /** A job's work begins; it rests when the returned function is called. */
  beside(): () => void {
    this.#working++;
    this.#changes++;
    let rests = false;
    return () => {
      if (rests) return;
      rests = true;
      this.#working--;
      this.#changes++;
    };
  }

  /** How many times as long as without a job requests took lately; null: nobody uses the disk, or never did without a job. */
  strain(): number | null {
    if (this.#now() - this.#last > QUIET || this.#calm.count === 0) return null;
    // nothing is faster than the clock can tell
    return Math.sqrt(this.#all.value / Math.max(this.#calm.value, LEAST ** 2));
  }
}

/** Milliseconds: what takes less is not told apart. */
const LEAST = 0.01;

class Mean {
  value = 0;
  count = 0;

  add(sample: number): void {
    this.count = Math.min(MEMORY, this.count + 1);
    this.value += (sample - this.value) / this.count;
  }
}
