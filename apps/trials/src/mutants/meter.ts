import { getHeapStatistics, setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

/** Garbage that may lie about when a measurement begins: all of it counts as if the work had made it. Bytes. */
const MOST_GARBAGE = 32 << 20;

setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc') as (options?: { readonly type: 'minor' }) => void;

/**
 * Memory of this thread, as V8 counts it, buffers included: how far it rose above what was in use without garbage. Garbage counts until it is
 * collected, that of the work and that of before, so that the work never costs more than this says.
 */
export class MemoryMeter {
  /** Each measurement begins without garbage: slow, and exact but for that of the work. */
  exact = false;
  /** What is in use without garbage, about. */
  #clean = 0;
  #most = 0;

  begin(): void {
    if (this.exact) this.#collect();
    else if (used() > this.#clean + MOST_GARBAGE) {
      collect({ type: 'minor' });
      if (used() > this.#clean + MOST_GARBAGE * (3 / 4)) this.#collect();
    }
    this.#most = used();
  }

  sample(): void {
    this.#most = Math.max(this.#most, used());
  }

  /** Bytes. */
  get rise(): number {
    return this.#most - this.#clean;
  }

  #collect(): void {
    collect();
    // what the first one found to be free may not have been given back yet
    if (this.exact) collect();
    this.#clean = used();
  }
}

function used(): number {
  const { used_heap_size: heap, external_memory: buffers } = getHeapStatistics();
  return heap + buffers;
}
