import { CHUNK_CLUSTERS, COUNT, type HostCounts, USE } from './host-counts.ts';
import { hasHost, isExternal } from './l2-entry.ts';
import type { Qcow2State } from './state.ts';
import {
  compressedBytes,
  compressedOffset,
  entryOffset,
  HIGH_COMPRESSED,
  HIGH_COPIED,
  LOW_ZERO,
  l2Reserved,
} from './structures.ts';

/** Notes a corruption at a byte of the file. */
export type Report = (message: string, offset: number) => void;

const NO_CHUNK = new Uint16Array();

/** Bits of the high word that an ordinary entry does not have: compressed, reserved. */
const HIGH_UNUSUAL = 0x7f00_0000;

/**
 * Counts what L2 tables refer to. A check of a terabyte meets sixteen million entries: ordinary ones take a short way without
 * calls and objects, the rest goes through functions that report.
 */
export class L2Counter {
  allocatedClusters = 0;
  fragmentedClusters = 0;
  compressedClusters = 0;
  readonly #state: Qcow2State;
  readonly #counted: HostCounts;
  readonly #report: Report;

  constructor(state: Qcow2State, counted: HostCounts, report: Report) {
    this.#state = state;
    this.#counted = counted;
    this.#report = report;
  }

  /** Counts the entries of the table at byte `offset`, `references` times. Active: the guest sees it. */
  count(words: Uint32Array, offset: number, references: number, active: boolean): void {
    if (isExternal(this.#state)) {
      this.#countExternal(words, offset, active);
      return;
    }
    const { clusterSize, clusterBits, entryWords, extendedL2 } = this.#state.geometry;
    // what an integer of the machine numbers: the rest goes the long way
    const nearClusters = Math.min(2 ** 31, Math.ceil(this.#state.fileEnd / clusterSize));
    const perHigh = 2 ** (32 - clusterBits);
    const zeroFlag = extendedL2 || this.#state.header.version === 2 ? 0 : LOW_ZERO;
    const lowUnusual = (clusterSize - 1) & ~zeroFlag;
    let chunkIndex = -1;
    let chunk: Uint16Array = NO_CHUNK;
    let allocated = 0;
    let fragmented = 0;
    let next = 0;
    for (let at = 0; at < words.length; at += entryWords) {
      const high = words[at] as number;
      const low = words[at + 1] as number;
      if (extendedL2) this.#checkBitmap(words, at, offset);
      if (high === 0 && (low & ~zeroFlag) === 0) continue;
      const cluster = (high & 0x00ff_ffff) * perHigh + (low >>> clusterBits);
      const unusual = (high & HIGH_UNUSUAL) !== 0 || (low & lowUnusual) !== 0;
      if (cluster === 0 && !unusual) continue;
      if (unusual || cluster >= nearClusters) {
        if (!this.#countUnusual(high, low, offset + at * 4, references, active)) continue;
      } else {
        const near = cluster | 0;
        const index = (near / CHUNK_CLUSTERS) | 0;
        if (index !== chunkIndex) {
          chunkIndex = index;
          chunk = this.#counted.chunk(index);
        }
        const inside = near % CHUNK_CLUSTERS;
        const present = chunk[inside] as number;
        if ((present & USE.metadata) !== 0 || (present & COUNT) + references >= COUNT)
          this.#countData(cluster, high, offset + at * 4, references, active);
        else
          chunk[inside] =
            (present + references) | (active ? (high & HIGH_COPIED ? USE.copied : USE.shared) : 0);
      }
      allocated++;
      if (high & HIGH_COMPRESSED) {
        fragmented++;
        if (active) this.compressedClusters++;
        continue;
      }
      if (next !== 0 && cluster !== next) fragmented++;
      next = cluster + 1;
    }
    if (!active) return;
    this.allocatedClusters += allocated;
    this.fragmentedClusters += fragmented;
  }

  /** Entries that refer to an external data file: nothing there is counted. */
  #countExternal(words: Uint32Array, offset: number, active: boolean): void {
    const { clusterSize, entryWords, extendedL2, l2Reach } = this.#state.geometry;
    let next = -1;
    for (let at = 0; at < words.length; at += entryWords) {
      const [high, low] = [words[at] as number, words[at + 1] as number];
      if (high === 0 && (low & ~LOW_ZERO) === 0) continue;
      const host = entryOffset(high, low);
      if (high & HIGH_COMPRESSED)
        this.#report('compressed cluster in an image with an external data file', offset + at * 4);
      else if (l2Reserved(high, low, extendedL2))
        this.#report('reserved bits are set in an L2 entry', offset + at * 4);
      else if (host < 0 || host % clusterSize !== 0)
        this.#report(`L2 entry points to ${host}, not a cluster`, offset + at * 4);
      // which table it is of is not known here: only where in one it stands
      else if (
        hasHost(this.#state, high, host) &&
        (host - (at / entryWords) * clusterSize) % l2Reach !== 0
      )
        this.#report(
          `L2 entry points to ${host} in the data file, not where the guest has it`,
          offset + at * 4,
        );
      if (!active) continue;
      this.allocatedClusters++;
      if (next >= 0 && host !== next) this.fragmentedClusters++;
      next = host + clusterSize;
    }
  }

  /** An entry that is compressed, reaches past the file, or breaks a rule. Returns whether it maps something. */
  #countUnusual(
    high: number,
    low: number,
    at: number,
    references: number,
    active: boolean,
  ): boolean {
    const { clusterSize, extendedL2 } = this.#state.geometry;
    if (high & HIGH_COMPRESSED) return this.#countCompressed(high, low, at, references);
    if (l2Reserved(high, low, extendedL2) || (low & LOW_ZERO && this.#state.header.version === 2))
      this.#report('reserved bits are set in an L2 entry', at);
    const host = entryOffset(high, low);
    if (host === 0) return false;
    if (host < 0 || host % clusterSize !== 0) {
      this.#report(`L2 entry points to ${host}, not a cluster`, at);
      return true;
    }
    // preallocated zeros need no bytes in the file
    if (host >= this.#state.fileEnd && (low & LOW_ZERO) === 0) {
      this.#report(`L2 entry points to ${host}, past the end of the file`, at);
      this.#counted.pointsBeyond(host);
      return true;
    }
    this.#countData(host / clusterSize, high, at, references, active);
    return true;
  }

  #countData(cluster: number, high: number, at: number, references: number, active: boolean): void {
    if (this.#counted.is(cluster, USE.metadata)) this.#report('L2 entry points to metadata', at);
    const said = active ? (high & HIGH_COPIED ? USE.copied : USE.shared) : 0;
    this.#counted.add(cluster, references, said);
  }

  #countCompressed(high: number, low: number, at: number, references: number): boolean {
    const { clusterBits, clusterSize } = this.#state.geometry;
    const offset = compressedOffset(high, low, clusterBits);
    if (high & HIGH_COPIED) this.#report('compressed cluster with the copied flag', at);
    if (offset < 0 || offset >= this.#state.fileEnd) {
      this.#report(`compressed cluster at ${offset} lies past the end of the file`, at);
      if (offset >= 0) this.#counted.pointsBeyond(offset);
      return true;
    }
    const end = offset + compressedBytes(high, low, clusterBits);
    for (let cluster = Math.floor(offset / clusterSize); cluster * clusterSize < end; cluster++) {
      if (this.#counted.is(cluster, USE.metadata))
        this.#report('compressed cluster in metadata', at);
      this.#counted.add(cluster, references);
    }
    return true;
  }

  /** Extended L2: no subcluster is both data and zero, and only what has a host cluster has data. */
  #checkBitmap(words: Uint32Array, at: number, offset: number): void {
    const zero = words[at + 2] as number;
    const allocated = words[at + 3] as number;
    if (zero === 0 && allocated === 0) return;
    const high = words[at] as number;
    const low = words[at + 1] as number;
    const wrong =
      (high & HIGH_COMPRESSED) !== 0
        ? 'compressed cluster with a subcluster bitmap'
        : (zero & allocated) !== 0
          ? 'subclusters that are both data and zero'
          : allocated !== 0 && entryOffset(high, low) === 0
            ? 'subclusters without a host cluster'
            : null;
    if (wrong !== null) this.#report(wrong, offset + at * 4);
  }
}
