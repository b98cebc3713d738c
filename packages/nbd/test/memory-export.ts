import {
  ALLOCATION_DEPTH,
  BASE_ALLOCATION,
  type BlockSize,
  type CallOptions,
  type ChangeOptions,
  DEFAULT_BLOCK_SIZE,
  type DirectReads,
  type Export,
  type ExportSupport,
  errnoError,
  type Hole,
  STATE,
  type StatusExtent,
  type ZeroOptions,
} from '../src/index.ts';

/** Bytes that are data or a hole together. */
export const GRAIN = 4096;

/** A call as the export got it. */
export interface Call {
  readonly call: string;
  readonly offset: number;
  readonly length: number;
  readonly [option: string]: unknown;
}

/** A disk in memory, with holes, that notes its calls, and keeps apart what is durable. */
export class MemoryExport implements Export {
  readonly size: number;
  readonly readOnly: boolean;
  readonly description: string;
  readonly blockSize: BlockSize;
  readonly supports: ExportSupport;
  readonly contexts: readonly string[] = [BASE_ALLOCATION, ALLOCATION_DEPTH];
  readonly direct: DirectReads | null = null;
  readonly bytes: Buffer;
  /** What a power cut would leave. */
  readonly durable: Buffer;
  readonly calls: Call[] = [];
  readonly #allocated: Uint8Array;
  /** Calls wait for it. */
  gate: Promise<void> = Promise.resolve();
  /** Thrown by every call but `flush`. */
  failure: unknown = null;

  constructor(
    size: number,
    options: Partial<Pick<Export, 'readOnly' | 'description' | 'blockSize' | 'supports'>> = {},
  ) {
    this.size = size;
    this.readOnly = options.readOnly ?? false;
    this.description = options.description ?? '';
    this.blockSize = options.blockSize ?? DEFAULT_BLOCK_SIZE;
    this.supports = options.supports ?? {
      trim: true,
      fastZero: true,
      cache: true,
      multiConn: true,
    };
    this.bytes = Buffer.alloc(size);
    this.durable = Buffer.alloc(size);
    this.#allocated = new Uint8Array(Math.ceil(size / GRAIN));
  }

  /** Puts bytes there, unasked. */
  fill(offset: number, bytes: Uint8Array): void {
    this.bytes.set(bytes, offset);
    this.#mark(offset, bytes.length, 1);
  }

  async read(offset: number, target: Uint8Array): Promise<readonly Hole[]> {
    await this.#enter('read', offset, target.length);
    const holes: Hole[] = [];
    for (const run of this.#runs(offset, target.length)) {
      const at = run.offset - offset;
      if (run.allocated) target.set(this.bytes.subarray(run.offset, run.offset + run.length), at);
      // a server that sends what it was told is a hole is seen by this
      else target.fill(0xee, at, at + run.length);
      if (!run.allocated) holes.push({ offset: run.offset, length: run.length });
    }
    return holes;
  }

  async write(offset: number, source: Uint8Array, { fua }: ChangeOptions): Promise<void> {
    await this.#enter('write', offset, source.length, { fua });
    this.fill(offset, source);
    if (fua) this.#harden(offset, source.length);
  }

  async writeZeroes(
    offset: number,
    length: number,
    { signal: _, ...options }: ZeroOptions,
  ): Promise<void> {
    await this.#enter('writeZeroes', offset, length, options);
    if (options.fast && (offset % GRAIN !== 0 || length % GRAIN !== 0))
      throw errnoError('ENOTSUP', 'zeros of parts of blocks are not fast');
    this.bytes.fill(0, offset, offset + length);
    if (options.mayTrim) this.#mark(offset, length, 0);
    else this.#mark(offset, length, 1);
    if (options.fua) this.#harden(offset, length);
  }

  async trim(offset: number, length: number, { fua }: ChangeOptions): Promise<void> {
    await this.#enter('trim', offset, length, { fua });
    this.bytes.fill(0, offset, offset + length);
    this.#mark(offset, length, 0);
    if (fua) this.#harden(offset, length);
  }

  async flush(): Promise<void> {
    this.calls.push({ call: 'flush', offset: 0, length: 0 });
    await this.gate;
    this.bytes.copy(this.durable);
  }

  async cache(offset: number, length: number, _options: CallOptions): Promise<void> {
    await this.#enter('cache', offset, length);
  }

  async blockStatus(
    context: string,
    offset: number,
    length: number,
    limit: number,
  ): Promise<readonly StatusExtent[]> {
    await this.#enter('blockStatus', offset, length, { context, limit });
    const hole = context === BASE_ALLOCATION ? STATE.hole | STATE.zero : 0;
    const data = context === BASE_ALLOCATION ? 0 : 1;
    return this.#runs(offset, length)
      .slice(0, limit)
      .map((run) => ({ length: run.length, status: run.allocated ? data : hole }));
  }

  /** Whether the grain of a byte is data. */
  isData(offset: number): boolean {
    return this.#allocated[Math.floor(offset / GRAIN)] === 1;
  }

  /** Calls of one kind. */
  named(call: string): readonly Call[] {
    return this.calls.filter((each) => each.call === call);
  }

  async #enter(call: string, offset: number, length: number, options: object = {}): Promise<void> {
    this.calls.push({ call, offset, length, ...options });
    await this.gate;
    if (this.failure !== null) throw this.failure;
  }

  #harden(offset: number, length: number): void {
    this.bytes.copy(this.durable, offset, offset, offset + length);
  }

  /** Whole grains become holes, touched ones data. */
  #mark(offset: number, length: number, allocated: 0 | 1): void {
    const first = allocated ? Math.floor(offset / GRAIN) : Math.ceil(offset / GRAIN);
    const end = (offset + length) / GRAIN;
    this.#allocated.fill(allocated, first, allocated ? Math.ceil(end) : Math.floor(end));
  }

  #runs(offset: number, length: number): { offset: number; length: number; allocated: boolean }[] {
    const runs: { offset: number; length: number; allocated: boolean }[] = [];
    const end = offset + length;
    for (let at = offset; at < end; ) {
      const next = Math.min(end, at - (at % GRAIN) + GRAIN);
      const allocated = this.#allocated[Math.floor(at / GRAIN)] === 1;
      const last = runs.at(-1);
      if (last?.allocated === allocated) last.length += next - at;
      else runs.push({ offset: at, length: next - at, allocated });
      at = next;
    }
    return runs;
  }
}
