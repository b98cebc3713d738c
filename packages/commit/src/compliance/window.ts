import { Violation } from './violation.ts';

/**
 * What was read and written since the last barrier, and by which step: steps between two barriers run in any order, and so one must not
 * write what another reads or writes.
 */
export class Window {
  readonly #reads: Map<string, number> = new Map();
  readonly #writes: Map<string, number> = new Map();
  #step = 0;

  /** Another step begins. */
  next(): void {
    this.#step++;
  }

  reads(image: number, start: number, end: number): void {
    for (let sector = start; sector < end; sector++) {
      const key = `${image}:${sector}`;
      if (isOther(this.#writes.get(key), this.#step)) throw race(image, sector);
      // of several readers any one of another step will do
      if (!isOther(this.#reads.get(key), this.#step)) this.#reads.set(key, this.#step);
    }
  }

  writes(image: number, start: number, end: number): void {
    for (let sector = start; sector < end; sector++) {
      const key = `${image}:${sector}`;
      const met = [this.#writes.get(key), this.#reads.get(key)];
      if (met.some((step) => isOther(step, this.#step))) throw race(image, sector);
      this.#writes.set(key, this.#step);
    }
  }
}

function isOther(step: number | undefined, than: number): boolean {
  return step !== undefined && step !== than;
}

function race(image: number, sector: number): Violation {
  return new Violation(
    'steps/in-any-order',
    `sector ${sector} of image ${image} is written while another step before the next barrier reads or writes it`,
  );
}
