/** Where a job is. Bytes are those to be copied or made zero; `check` and `relink` count images. */
export interface Progress {
  readonly phase: 'check' | 'copy' | 'verify' | 'relink' | 'empty';
  readonly done: number;
  readonly total: number;
}

/** How long a piece of the rate's size takes. */
const PIECE_MILLISECONDS = 50;

/** Makes bytes wait so that no more than `bytesPerSecond` pass; 0 lifts the limit. */
export class Throttle {
  #bytesPerSecond: number;
  /** When the bytes let through so far will have been paid for, ms. */
  #paidAt = 0;
  /** Aborted when the rate changes. */
  #changed: AbortController = new AbortController();
  readonly #clock: Clock;

  constructor(bytesPerSecond: number, clock: Clock) {
    this.#bytesPerSecond = bytesPerSecond;
    this.#clock = clock;
  }

  /** Bytes that should pass at once at most: what 50 ms of the rate allow, so that another rate takes effect soon. Infinity: no limit. */
  get atOnce(): number {
    if (this.#bytesPerSecond === 0) return Number.POSITIVE_INFINITY;
    return (this.#bytesPerSecond / 1000) * PIECE_MILLISECONDS;
  }

  /** Takes effect at once: who waits goes on, and what comes next waits by the new rate. */
  setRate(bytesPerSecond: number): void {
    this.#bytesPerSecond = bytesPerSecond;
    this.#paidAt = this.#clock.now();
    this.#changed.abort();
    this.#changed = new AbortController();
  }

  /** Resolves when `bytes` more may be written. */
  async pass(bytes: number, signal?: AbortSignal): Promise<void> {
    if (this.#bytesPerSecond === 0) return;
    const now = this.#clock.now();
    const wait = this.#paidAt - now;
    this.#paidAt = Math.max(now, this.#paidAt) + (bytes / this.#bytesPerSecond) * 1000;
    if (wait > 0) await this.#wait(wait, signal);
  }

  async #wait(milliseconds: number, signal: AbortSignal | undefined): Promise<void> {
    const changed = this.#changed.signal;
    const either = signal === undefined ? changed : AbortSignal.any([signal, changed]);
    try {
      await this.#clock.sleep(milliseconds, either);
    } catch (cause) {
      signal?.throwIfAborted();
      if (!changed.aborted) throw cause;
    }
  }
}

/** What limits a job: a `Throttle`, or whoever else lets bytes pass. */
export type Limit = Pick<Throttle, 'pass'> & Partial<Pick<Throttle, 'atOnce'>>;

/** Time, passed in so that tests can run it. */
export interface Clock {
  /** Milliseconds, monotonic. */
  now(): number;
  /** Rejects with the signal's reason when it is aborted. */
  sleep(milliseconds: number, signal?: AbortSignal): Promise<void>;
  /** ISO 8601, UTC. */
  date(): string;
}
