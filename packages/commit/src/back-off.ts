import type { GuestLatency } from './live.ts';
import type { Clock } from './progress.ts';

/** Requests of the guest may take so many times as long as without the job. */
const TARGET = 2;
/** Milliseconds of rest between two pieces: the first step, and the most, so that a job beneath a busy disk still ends. */
const [LEAST, MOST] = [1, 100];
/** Milliseconds after which the rest is judged anew: by then it has shown what it does. */
const JUDGED_EVERY = 50;
/** Milliseconds after which a job that never rests does so, so that it is known how the disk is without it; and how long. */
const [CALM_EVERY, CALM] = [1000, 10];

/** Lets a job rest between pieces for as long as the guest's requests ask for it. */
export class BackOff {
  readonly #latency: GuestLatency;
  readonly #clock: Clock;
  #rest = 0;
  #judgedAt: number;
  #restedAt: number;
  /** Ends what the guest's requests are said to run beside; null: nothing. */
  #end: (() => void) | null = null;

  constructor(latency: GuestLatency, clock: Clock) {
    this.#latency = latency;
    this.#clock = clock;
    this.#judgedAt = this.#restedAt = clock.now();
  }

  /** Milliseconds to rest before the next piece. 0: it may come at once. */
  get due(): number {
    const now = this.#clock.now();
    if (now - this.#judgedAt >= JUDGED_EVERY) {
      this.#judgedAt = now;
      this.#judge();
    }
    const isUnsure = now - this.#restedAt >= CALM_EVERY && this.#latency.strain() !== null;
    return isUnsure ? Math.max(CALM, this.#rest) : this.#rest;
  }

  /** Rests. No piece is under way. Rejects with the signal's reason. */
  async rest(milliseconds: number, signal: AbortSignal | undefined): Promise<void> {
    this.stop();
    await this.#clock.sleep(milliseconds, signal);
    this.#restedAt = this.#clock.now();
  }

  /** A piece comes: from now on requests run beside the job. */
  work(): void {
    this.#end ??= this.#latency.beside();
  }

  /** The job is over, or waits for somebody. */
  stop(): void {
    this.#end?.();
    this.#end = null;
  }

  #judge(): void {
    const strain = this.#latency.strain();
    if (strain === null) this.#rest = 0;
    else if (strain > TARGET) this.#rest = Math.min(MOST, Math.max(LEAST, 2 * this.#rest));
    else this.#rest = this.#rest < LEAST ? 0 : this.#rest * 0.8;
  }
}
