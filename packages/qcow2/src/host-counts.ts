import { imageError } from './corrupt.ts';
import { SAFE_LIMITS } from './limits.ts';
import type { Qcow2State } from './state.ts';

/** Clusters of one chunk. */
export const CHUNK_CLUSTERS = 8192;

/** What is known of a cluster beside its count, as bits above it. */
export const USE = {
  /** It holds metadata. */
  metadata: 0x8000,
  /** An entry of the active mapping refers to it with the copied flag; without it. */
  copied: 0x4000,
  shared: 0x2000,
} as const;

/** Bits of the count; counts from here on live apart. */
export const COUNT = 0x1fff;

/** Clusters of one page of the counts that live apart: a hostile block may have a million of them, or one in every chunk. */
const PAGE_CLUSTERS = 512;

/**
 * References to each host cluster, and what they say of it: two bytes a cluster, in chunks that exist only where something was counted,
 * so that a sparse file of any length costs what it holds.
 */
export class HostCounts {
  readonly chunks: ReadonlyMap<number, Uint16Array>;
  #beyond = Number.POSITIVE_INFINITY;
  readonly #chunks = new Map<number, Uint16Array>();
  readonly #large = new Map<number, Float64Array>();
  readonly #state: Qcow2State;

  constructor(state: Qcow2State) {
    this.#state = state;
    this.chunks = this.#chunks;
  }

  /** The chunk of clusters from `index * CHUNK_CLUSTERS` on. @throws ImageError `IMAGE_LIMIT` when there are too many. */
  chunk(index: number): Uint16Array {
    const present = this.#chunks.get(index);
    if (present !== undefined) return present;
    if ((this.#chunks.size + 1) * CHUNK_CLUSTERS * 2 > SAFE_LIMITS.countedBytes)
      throw imageError(
        'IMAGE_LIMIT',
        this.#state.label,
        `has clusters in too many places to count them in ${SAFE_LIMITS.countedBytes} bytes`,
      );
    const chunk = new Uint16Array(CHUNK_CLUSTERS);
    this.#chunks.set(index, chunk);
    return chunk;
  }

  /** References to one cluster. */
  count(cluster: number): number {
    const count = this.#get(cluster) & COUNT;
    return count === COUNT ? (this.#page(cluster)[cluster % PAGE_CLUSTERS] as number) : count;
  }

  /** The first byte past the end of the file that something points to all the same; Infinity: nothing does. */
  get beyond(): number {
    return this.#beyond;
  }

  /** Number of the first cluster behind all that count. */
  get end(): number {
    let end = 0;
    for (const [index, chunk] of this.#chunks) {
      let last = chunk.length - 1;
      while (last >= 0 && ((chunk[last] as number) & COUNT) === 0) last--;
      if (last >= 0) end = Math.max(end, index * CHUNK_CLUSTERS + last + 1);
    }
    return end;
  }

  /** Whether a cluster was said to be of a use. */
  is(cluster: number, use: number): boolean {
    return (this.#get(cluster) & use) !== 0;
  }

  /** Notes that something points to byte `at`, past the end of the file: nothing is counted there. */
  pointsBeyond(at: number): void {
    this.#beyond = Math.min(this.#beyond, at);
  }

  /** Counts references to one cluster, and notes what it is used for. */
  add(cluster: number, references: number, uses = 0): void {
    const chunk = this.chunk(Math.floor(cluster / CHUNK_CLUSTERS));
    const at = cluster % CHUNK_CLUSTERS;
    const said = chunk[at] as number;
    const few = said & COUNT;
    const sum = (few === COUNT ? this.count(cluster) : few) + references;
    if (sum >= COUNT) this.#page(cluster)[cluster % PAGE_CLUSTERS] = sum;
    chunk[at] = (said & ~COUNT) | Math.min(sum, COUNT) | uses;
  }

  #page(cluster: number): Float64Array {
    const index = Math.floor(cluster / PAGE_CLUSTERS);
    const present = this.#large.get(index);
    if (present !== undefined) return present;
    const page = new Float64Array(PAGE_CLUSTERS);
    this.#large.set(index, page);
    return page;
  }

  #get(cluster: number): number {
    const chunk = this.#chunks.get(Math.floor(cluster / CHUNK_CLUSTERS));
    return chunk?.[cluster % CHUNK_CLUSTERS] ?? 0;
  }
}
