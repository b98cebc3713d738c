import { DownfoldError } from '@downfold/units';
import { BUDGET } from '../tools/budget.ts';
import type { MemoryMeter } from './meter.ts';

/** A refusal by a typed error. */
export interface Refusal {
  readonly at: string;
  readonly code: string;
  readonly message: string;
}

/** What was seen while one image was worked on. */
export class Attempt {
  readonly faults: string[] = [];
  readonly refusals: Refusal[] = [];
  /** Whether the only faults are costs: worth a second look on a busy machine. */
  onlyCosts = true;
  readonly #label: string;
  readonly #meter: MemoryMeter;

  /** @param label how errors must name the image */
  constructor(label: string, meter: MemoryMeter) {
    this.#label = label;
    this.#meter = meter;
  }

  fault(what: string): void {
    this.faults.push(what);
    this.onlyCosts = false;
  }

  /**
   * Does a part of the work, within budget; the time is that of the thread: of a busy machine's clock nobody could tell whose it was. What waits for
   * ever is the campaign's affair. Resolves with null when it was refused, by an error that is as it must be or not.
   */
  async part<T>(at: string, work: () => Promise<T>): Promise<T | null> {
    this.#meter.begin();
    const start = process.threadCpuUsage();
    try {
      return await work();
    } catch (cause) {
      this.#refused(at, cause);
      return null;
    } finally {
      const { user, system } = process.threadCpuUsage(start);
      const took = (user + system) / 1000;
      if (took > BUDGET.milliseconds) this.faults.push(`${at} took ${took.toFixed(0)} ms`);
      this.#meter.sample();
      if (this.#meter.rise > BUDGET.bytes)
        this.faults.push(`${at}: memory grew by ${this.#meter.rise} bytes`);
    }
  }

  /** Whether a part was refused; with that code. */
  refused(part: string, as?: string): boolean {
    return this.refusals.some(({ at, code }) => at === part && (as === undefined || code === as));
  }

  #refused(at: string, cause: unknown): void {
    if (cause instanceof SuppressedError) {
      this.#refused(at, cause.suppressed);
      this.#refused(`${at}, and close`, cause.error);
    } else this.#refusedOnce(at, cause);
  }

  #refusedOnce(at: string, cause: unknown): void {
    if (!(cause instanceof DownfoldError)) {
      this.fault(`${at}: an error without a type: ${(cause as Error)?.stack ?? String(cause)}`);
      return;
    }
    const { code, message, details } = cause;
    if (!/^(IMAGE|STORAGE)_/.test(code) || !message.includes(this.#label))
      this.fault(`${at}: an error that names no image: ${cause.stack}`);
    const { offset } = details;
    if (offset !== undefined && !Number.isSafeInteger(offset))
      this.fault(`${at}: ${code} at ${offset}, which is no offset`);
    this.refusals.push({ at, code, message });
  }
}
