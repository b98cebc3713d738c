/** Where a job is. Bytes are those to be copied or made zero; `check` and `relink` count images. */
export interface Progress {
  readonly phase: 'check' | 'copy' | 'verify' | 'relink' | 'empty';
  readonly done: number;
  readonly total: number;
}

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

  /** Whether bytes wait: then they are copied as they come, and not gathered for one call that would let all of them pass at once. */
  get limited(): boolean {
    return this.#bytesPerSecond > 0;
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
export type Limit = Pick<Throttle, 'pass'> & Partial<Pick<Throttle, 'limited'>>;

/** Time, passed in so that tests can run it. */
export interface Clock {
  /** Milliseconds, monotonic. */
  now(): number;
  /** Rejects with the signal's reason when it is aborted. */
  sleep(milliseconds: number, signal?: AbortSignal): Promise<void>;
  /** ISO 8601, UTC. */
  date(): string;
}
