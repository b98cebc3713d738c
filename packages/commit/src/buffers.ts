/** Buffers for copies that go through memory, used again: of fresh ones the system has to make every page, which takes longer than the copy. */
export class Buffers {
  readonly #bytes: number;
  readonly #free: Uint8Array[] = [];

  /** `bytes`: of each, at least. There are as many as are in use at once. */
  constructor(bytes: number) {
    this.#bytes = bytes;
  }

  /** Runs `work` with a buffer of `length` bytes, whatever they are; it is another's when it has settled. */
  async lend<T>(length: number, work: (bytes: Uint8Array) => Promise<T>): Promise<T> {
    const before = this.#free.pop();
    const isEnough = before !== undefined && before.length >= length;
    const buffer = isEnough ? before : new Uint8Array(Math.max(length, this.#bytes));
    try {
      return await work(buffer.subarray(0, length));
    } finally {
      this.#free.push(buffer);
    }
  }
}
