const FIRST_WAIT_MILLISECONDS = 100;
const LONGEST_WAIT_MILLISECONDS = 5000;

/** How long a job waits before it tries again by itself: twice as long each time, until it gets further than it was. */
export class Patience {
  #wait = FIRST_WAIT_MILLISECONDS;
  #furthest = Number.NEGATIVE_INFINITY;

  /** Milliseconds to wait now. @param done bytes that were done when it failed */
  next(done: number): number {
    if (done > this.#furthest) this.#wait = FIRST_WAIT_MILLISECONDS;
    this.#furthest = Math.max(done, this.#furthest);
    const wait = this.#wait;
    this.#wait = Math.min(LONGEST_WAIT_MILLISECONDS, 2 * wait);
    return wait;
  }
}
