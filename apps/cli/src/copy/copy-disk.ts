import type { CowSource, Image } from '@downfold/image';
import { isQcow2 } from '@downfold/qcow2';
import { alignDown, alignUp, guestOffset, rangeBetween, SECTOR_BYTES } from '@downfold/units';
import type { Progress } from '../output/progress.ts';
import type { DiskSource, Run } from './disk-source.ts';
import { unitRuns } from './unit-runs.ts';

/** How a disk is copied. */
export interface CopyDiskOptions {
  /** Zeros of so many bytes and more are not written as data; 0: everything is, zeros too. */
  readonly sparseBytes: number;
  /** What the target shows where nothing is written is zero, and not a backing file or old content. */
  readonly targetIsZero: boolean;
  /** What lies below the target, where the copy ends inside a cluster. Default: nothing. */
  readonly fill?: CowSource | null;
  /** Clusters are compressed, in a target that can have them. */
  readonly compress?: boolean;
  /** Resolves when so many bytes more may be written. */
  readonly pass: (bytes: number) => Promise<void>;
  readonly onProgress: (progress: Progress & { readonly phase: 'copy' }) => void;
  readonly signal?: AbortSignal | undefined;
}

/** What was done, in bytes of the disk. */
export interface Copied {
  bytesCopied: number;
  bytesZeroed: number;
}

/** Read and written at once: large enough for the system calls not to count, small enough for the processor's cache. */
const PIECE_BYTES = 2 << 20;
/** Finest zeros worth looking for where the target has no clusters. Source: qemu-img's default for -S. */
const LEAST_UNIT_BYTES = 4096;

/**
 * Copies a disk into a new image, or over an old one: only what is allocated is read, what turns out to be zero is not written. The target's last
 * flush is the caller's.
 */
export async function copyDisk(
  source: DiskSource,
  target: Image,
  options: CopyDiskOptions,
): Promise<Copied> {
  const { signal, onProgress, targetIsZero, sparseBytes, fill = null } = options;
  const packed = options.compress === true && isQcow2(target) ? target : null;
  // a cluster that is packed takes a place of its own size: finer zeros than -S asks for cost nothing. -S 0 is heard, as by qemu-img
  const unit =
    packed === null
      ? unitOf(target.geometry.allocationGranularity, sparseBytes)
      : packed.geometry.clusterSize;
  const total = source.length;
  const copied: Copied = { bytesCopied: 0, bytesZeroed: 0 };
  const zero = async (start: number, end: number): Promise<void> => {
    if (targetIsZero) return;
    await target.writeZeroes(rangeBetween(guestOffset(start), end), { fill });
    copied.bytesZeroed += end - start;
  };
  const data = async (start: number, bytes: Uint8Array): Promise<void> => {
    await options.pass(bytes.length);
    const packedBytes = packed === null ? 0 : wholeClusters(packed, start, bytes.length);
    if (packedBytes > 0)
      await packed?.writeCompressed(guestOffset(start), bytes.subarray(0, packedBytes));
    if (packedBytes < bytes.length)
      await target.write(guestOffset(start + packedBytes), bytes.subarray(packedBytes), { fill });
    copied.bytesCopied += bytes.length;
  };
  const pieces = new Pieces(source);
  try {
    for await (const run of unitRuns(source.runs(signal), unit, total)) {
      signal?.throwIfAborted();
      if (run.kind === 'below') continue;
      if (run.kind === 'zero' && sparseBytes > 0) await zero(run.start, run.end);
      else
        await pieces.each(run, async (start, bytes) => {
          signal?.throwIfAborted();
          if (sparseBytes === 0) await data(start, bytes);
          else await writeSparse(start, bytes, unit, data, zero);
          onProgress({ phase: 'copy', done: start + bytes.length, total });
        });
    }
    await pieces.settled();
  } finally {
    await pieces.ended();
  }
  onProgress({ phase: 'copy', done: total, total });
  return copied;
}

/** How many of `length` bytes from the start of a cluster on are clusters that can be compressed: whole, or cut by the end of the disk. */
function wholeClusters({ geometry }: Image, start: number, length: number): number {
  const isEnd = start + length === geometry.virtualSize;
  return isEnd ? length : alignDown(length, geometry.clusterSize);
}

/** What zeros are looked for in: whole allocation units of the target, as many as `sparseBytes` needs. */
function unitOf(granularity: number, sparseBytes: number): number {
  const least = granularity > 1 ? granularity : LEAST_UNIT_BYTES;
  const wanted = alignDown(sparseBytes, SECTOR_BYTES);
  if (granularity === 1 && wanted > 0) return wanted;
  return alignUp(Math.max(least, wanted), least);
}

/** Reads the next piece while the last one is written. */
class Pieces {
  readonly #source: DiskSource;
  readonly #buffers = [pageAligned(), pageAligned()];
  #next = 0;
  #writing: Promise<void> = Promise.resolve();

  constructor(source: DiskSource) {
    this.#source = source;
  }

  /** Hands a run over, piece by piece, in order; the last piece may not be written yet when it resolves. */
  async each(
    { start, end }: Run,
    write: (start: number, bytes: Uint8Array) => Promise<void>,
  ): Promise<void> {
    for (let at = start; at < end; ) {
      const stop = Math.min(end, alignDown(at, PIECE_BYTES) + PIECE_BYTES);
      const buffer = this.#buffers[this.#next] as Uint8Array;
      this.#next = 1 - this.#next;
      const bytes = buffer.subarray(0, stop - at);
      await this.#source.read(at, bytes);
      await this.#writing;
      const from = at;
      this.#writing = write(from, bytes);
      // told of by whoever awaits it next, and until then nobody has
      this.#writing.catch(() => {});
      at = stop;
    }
  }

  /** Resolves when everything is written. */
  async settled(): Promise<void> {
    await this.#writing;
  }

  /** Resolves when nothing is under way any more, however it ended. */
  async ended(): Promise<void> {
    await Promise.allSettled([this.#writing]);
  }
}

/** Reads into a buffer that starts on a page are up to four times as fast; resizable ArrayBuffers do. */
function pageAligned(): Uint8Array {
  return new Uint8Array(
    new ArrayBuffer(PIECE_BYTES, { maxByteLength: PIECE_BYTES }),
    0,
    PIECE_BYTES,
  );
}

const ZEROS = Buffer.alloc(PIECE_BYTES);

/** Writes what is not zero, in runs of whole units of the disk. */
async function writeSparse(
  start: number,
  bytes: Uint8Array,
  unit: number,
  data: (start: number, bytes: Uint8Array) => Promise<void>,
  zero: (start: number, end: number) => Promise<void>,
): Promise<void> {
  const end = start + bytes.length;
  const isZero = (from: number, to: number): boolean =>
    ZEROS.compare(bytes, from - start, to - start, 0, to - from) === 0;
  const stopOf = (at: number): number => Math.min(end, alignDown(at, unit) + unit);
  for (let at = start; at < end; ) {
    let stop = stopOf(at);
    const zeros = isZero(at, stop);
    while (stop < end && isZero(stop, stopOf(stop)) === zeros) stop = stopOf(stop);
    if (zeros) await zero(at, stop);
    else await data(at, bytes.subarray(at - start, stop - start));
    at = stop;
  }
}
