/** Chunks of a file by their number, the least recently used go first. Who asks for one that is on its way waits for it. */
export class ChunkCache {
  readonly #chunks = new Map<number, Promise<Uint8Array>>();
  readonly #most: number;
  readonly #load: (chunk: number) => Promise<Uint8Array>;

  /** @param most chunks that are kept */
  constructor(most: number, load: (chunk: number) => Promise<Uint8Array>) {
    this.#most = most;
    this.#load = load;
  }

  async get(chunk: number): Promise<Uint8Array> {
    const found = this.#chunks.get(chunk) ?? this.#load(chunk);
    // at the end of the map is what was used last
    this.#chunks.delete(chunk);
    this.#chunks.set(chunk, found);
    for (const oldest of this.#chunks.keys()) {
      if (this.#chunks.size <= this.#most) break;
      this.#chunks.delete(oldest);
    }
    try {
      return await found;
    } catch (cause) {
      if (this.#chunks.get(chunk) === found) this.#chunks.delete(chunk);
      throw cause;
    }
  }

  clear(): void {
    this.#chunks.clear();
  }
}
