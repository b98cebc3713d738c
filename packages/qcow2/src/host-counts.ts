const CHUNK_CLUSTERS = 65_536;
/** Counts from here on live in a map. */
const LARGE = 0xffff;

/**
 * A number for each host cluster: two bytes each, in chunks that exist only where something was counted, so that a sparse file of
 * any length costs what it holds.
 */
export class HostCounts {
  readonly #chunks: (Uint16Array | undefined)[];
  readonly #large: Map<number, number> = new Map();

  constructor(clusters: number) {
    this.#chunks = new Array(Math.ceil(clusters / CHUNK_CLUSTERS));
  }

  /** The count of one cluster. */
  get(cluster: number): number {
    const count =
      this.#chunks[Math.floor(cluster / CHUNK_CLUSTERS)]?.[cluster % CHUNK_CLUSTERS] ?? 0;
    return count === LARGE ? (this.#large.get(cluster) ?? LARGE) : count;
  }

  /** Adds to the count of one cluster. */
  add(cluster: number, by: number): void {
    const index = Math.floor(cluster / CHUNK_CLUSTERS);
    this.#chunks[index] ??= new Uint16Array(CHUNK_CLUSTERS);
    const chunk = this.#chunks[index] as Uint16Array;
    const at = cluster % CHUNK_CLUSTERS;
    const sum = (chunk[at] as number) + by;
    if (sum < LARGE) chunk[at] = sum;
    else {
      this.#large.set(cluster, this.get(cluster) + by);
      chunk[at] = LARGE;
    }
  }

  /** Calls `visit` for each cluster where this or `other` is not zero, in order, with both counts. */
  compare(other: HostCounts, visit: (cluster: number, mine: number, others: number) => void): void {
    const chunks = Math.max(this.#chunks.length, other.#chunks.length);
    for (let index = 0; index < chunks; index++) {
      const [mine, others] = [this.#chunks[index], other.#chunks[index]];
      if (mine === undefined && others === undefined) continue;
      for (let at = 0; at < CHUNK_CLUSTERS; at++) {
        if ((mine?.[at] ?? 0) === 0 && (others?.[at] ?? 0) === 0) continue;
        const cluster = index * CHUNK_CLUSTERS + at;
        visit(cluster, this.get(cluster), other.get(cluster));
      }
    }
  }
}
