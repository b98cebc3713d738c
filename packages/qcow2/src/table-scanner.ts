import { ExtentColumns, KIND } from '@downfold/image';
import { isExternal } from './l2-entry.ts';
import { SCAN_MODULE } from './scan-module.ts';
import type { Qcow2State } from './state.ts';
import { ENTRY_BYTES, HIGH_L2_RESERVED, HIGH_OFFSET_LOST, LOW_ZERO } from './structures.ts';

const PAGE = 65536;
/** Bytes of a run in the columns of starts, ends and hosts; a byte more of its kind. */
const COLUMN_BYTES = 8;

/** What of WebAssembly is used: the types of Node do not tell. */
interface Wasm {
  readonly Module: new (bytes: Uint8Array) => object;
  readonly Instance: new (module: object) => { readonly exports: unknown };
}

/** What the module offers; see wasm/scan.wat. */
interface Scan {
  readonly memory: { readonly buffer: ArrayBuffer; grow(pages: number): number };
  readonly scan: (
    table: number,
    from: number,
    to: number,
    guest: number,
    clusterBytes: number,
    cluster: bigint,
    refused: bigint,
    fileEnd: bigint,
    starts: number,
    ends: number,
    hosts: number,
    kinds: number,
  ) => number;
}

/** Undefined where it is switched off (`node --jitless`). */
const { WebAssembly: wasm } = globalThis as { readonly WebAssembly?: Wasm };
let compiled: object | null = null;

/** A scanner of an image's tables; null when it has none that a scanner can take, or the machine has no WebAssembly. */
export function tableScanner(state: Qcow2State): TableScanner | null {
  if (wasm === undefined || state.geometry.extendedL2 || isExternal(state)) return null;
  // a constant, made when it is first wanted
  compiled ??= new wasm.Module(Buffer.from(SCAN_MODULE, 'base64'));
  return new TableScanner(state, new wasm.Instance(compiled).exports as Scan);
}

/** Scans standard L2 tables that lie in its own memory, for walks over large images. */
export class TableScanner {
  /** Where a table is read to, and brought into words of the machine. */
  readonly bytes: Uint8Array;
  readonly #state: Qcow2State;
  readonly #scan: Scan;
  /** Bits that no entry has which maps a cluster plainly. */
  readonly #refused: bigint;

  constructor(state: Qcow2State, scan: Scan) {
    const { clusterSize, l2Entries } = state.geometry;
    this.#state = state;
    this.#scan = scan;
    const { memory } = scan;
    const wanted = clusterSize + l2Entries * (3 * COLUMN_BYTES + 1);
    memory.grow(Math.max(0, Math.ceil((wanted - memory.buffer.byteLength) / PAGE)));
    this.bytes = new Uint8Array(memory.buffer, 0, clusterSize);
    this.#refused = refusedBits(clusterSize, state.header.version);
  }

  /**
   * The runs of guest bytes [from, to), all of the table of guest bytes from `base` on that `bytes` holds. Null: an entry breaks a rule, or
   * refers to where no data can be; which one, the slow way tells.
   */
  scan(base: number, from: number, to: number): ExtentColumns | null {
    const { clusterSize, l2Entries } = this.#state.geometry;
    const first = Math.floor((from - base) / clusterSize);
    const last = Math.ceil((to - base) / clusterSize);
    const starts = clusterSize;
    const ends = starts + l2Entries * COLUMN_BYTES;
    const hosts = ends + l2Entries * COLUMN_BYTES;
    const kinds = hosts + l2Entries * COLUMN_BYTES;
    const count = this.#scan.scan(
      0,
      first,
      last,
      base + first * clusterSize,
      clusterSize,
      BigInt(clusterSize),
      this.#refused,
      BigInt(this.#state.fileEnd),
      starts,
      ends,
      hosts,
      kinds,
    );
    if (count < 0) return null;
    const { buffer } = this.#scan.memory;
    // copies: the next table's runs go to the same place
    const columns = new ExtentColumns(
      new Float64Array(buffer, starts, count).slice(),
      new Float64Array(buffer, ends, count).slice(),
      new Uint8Array(buffer, kinds, count).slice(),
      new Float64Array(buffer, hosts, count).slice(),
    );
    if (this.#meetsTables(columns)) return null;
    const cut = from - (columns.starts[0] as number);
    columns.starts[0] = from;
    columns.hosts[0] = (columns.hosts[0] as number) + cut;
    columns.ends[count - 1] = to;
    return columns;
  }

  /** Whether whole clusters of data lie in the header, the L1 table or the refcount table. */
  #meetsTables({ starts, ends, kinds, hosts, length }: ExtentColumns): boolean {
    const { clusterSize } = this.#state.geometry;
    const { l1TableOffset, l1Size, refcountTableOffset, refcountTableClusters } =
      this.#state.header;
    const l1End = l1TableOffset + l1Size * ENTRY_BYTES;
    const refcountEnd = refcountTableOffset + refcountTableClusters * clusterSize;
    for (let index = 0; index < length; index++) {
      if (kinds[index] !== KIND.data) continue;
      const host = hosts[index] as number;
      const end = host + (ends[index] as number) - (starts[index] as number);
      if (host < clusterSize) return true;
      if (host < l1End && l1TableOffset < end) return true;
      if (host < refcountEnd && refcountTableOffset < end) return true;
    }
    return false;
  }
}

/** Reserved bits, offsets above 2^53 or not of a cluster, and in version 2 the zero flag. */
function refusedBits(clusterSize: number, version: number): bigint {
  const high = HIGH_L2_RESERVED | HIGH_OFFSET_LOST;
  // a cluster has 512 bytes at least: what lies below an offset's bits is reserved
  const low = version === 2 ? clusterSize - 1 : (clusterSize - 1) & ~LOW_ZERO;
  return (BigInt(high) << 32n) | BigInt(low);
}
