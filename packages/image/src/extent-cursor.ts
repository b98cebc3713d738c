import type { ExtentBatch } from './extent-batch.ts';

/** Where a walk stands in extents that come in batches. It is asked for bytes in ascending order; only reading the next batch waits. */
export class ExtentCursor<Batch extends ExtentBatch = ExtentBatch> {
  /** Of the extent in `batch` that holds the byte that was last asked for. */
  index = 0;
  #batch: Batch | null = null;
  readonly #batches: AsyncIterator<Batch>;

  constructor(batches: AsyncIterable<Batch>) {
    this.#batches = batches[Symbol.asyncIterator]();
  }

  /** The batch whose extent at `index` holds byte `at`; null: it is not in the one that was read last. */
  here(at: number): Batch | null {
    const batch = this.#batch;
    if (batch === null) return null;
    const { ends } = batch;
    while (this.index < ends.length && (ends[this.index] as number) <= at) this.index++;
    return this.index < ends.length ? batch : null;
  }

  /** As `here`, and reads on until it is; null: the extents end before. */
  async to(at: number): Promise<Batch | null> {
    for (;;) {
      const batch = this.here(at);
      if (batch !== null || !(await this.readOn())) return batch;
    }
  }

  /** Reads the next batch; false: there is none. */
  async readOn(): Promise<boolean> {
    const { value, done } = await this.#batches.next();
    if (done === true) return false;
    this.#batch = value;
    this.index = 0;
    return true;
  }

  async close(): Promise<void> {
    await this.#batches.return?.();
  }
}
