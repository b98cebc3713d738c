import { type OpenChain, type OwnedBatch, subchainExtents, viewOf } from '@downfold/chain';
import {
  type CowSource,
  ExtentCursor,
  isPlaced,
  KIND,
  WORTHWHILE_HOLE_BYTES,
} from '@downfold/image';
import { DownfoldError, guestOffset, rangeBetween, SECTOR_BYTES } from '@downfold/units';
import { FailureWithCode } from './failure.ts';
import type { Progress } from './output/progress.ts';

/** Where two disks first differ. `offset` of a content difference: the start of its 512-byte sector. */
export interface Difference {
  readonly reason: 'content' | 'allocation';
  readonly offset: number;
}

/** How to compare. */
export interface CompareDisksOptions {
  /** Also what is allocated must be the same. */
  readonly strict: boolean;
  readonly onProgress: (progress: Progress) => void;
  readonly signal?: AbortSignal;
}

const BUFFER_BYTES = 1 << 20;

/** qemu-img's: what is allocated could not be told; data could not be read. */
const EXIT = { status: 3, read: 4 } as const;

/** What fails ends the command with this code, and is told of as it is. */
async function orExit<T>(exitCode: number, work: Promise<T>): Promise<T> {
  return await work.catch((cause: unknown) => {
    if (!(cause instanceof DownfoldError)) throw cause;
    const { code, message, details } = cause;
    throw new FailureWithCode(exitCode, code, message, details, cause);
  });
}

/** What a walk finds at a byte. */
interface Found {
  readonly end: number;
  readonly data: boolean;
  readonly present: boolean;
  /** It has a place in the file, where its bytes lie or would as the guest has them. */
  readonly placed: boolean;
}

/** One disk while it is walked: the extent that holds the current byte. */
class Walk {
  readonly size: number;
  readonly view: CowSource;
  readonly #extents: ExtentCursor<OwnedBatch>;
  readonly #sealed: readonly boolean[];

  constructor({ layers }: OpenChain, { strict, signal }: CompareDisksOptions) {
    const top = layers.length - 1;
    this.size = layers[top]?.image.geometry.virtualSize ?? 0;
    this.view = viewOf(layers, top);
    const whole = rangeBetween(guestOffset(0), this.size);
    // of what is allocated the smallest hole counts
    const holes = strict ? 1 : WORTHWHILE_HOLE_BYTES;
    const extents = subchainExtents(layers, { base: -1, top }, whole, { signal, holes });
    this.#extents = new ExtentCursor(extents);
    this.#sealed = layers.map(({ image }) => image.encrypted);
  }

  /** What is at byte `at`, which never goes back: its end, whether it can hold data, whether anything is allocated there. @throws FailureWithCode */
  at(at: number): Promise<Found> {
    return orExit(EXIT.status, this.#find(at));
  }

  async #find(at: number): Promise<Found> {
    if (at >= this.size)
      return { end: Number.POSITIVE_INFINITY, data: false, present: false, placed: false };
    const batch = await this.#extents.to(at);
    if (batch === null) throw new Error(`no extent at ${at}`);
    const { index } = this.#extents;
    const kind = batch.kinds[index];
    return {
      end: batch.ends[index] as number,
      data: kind === KIND.data || kind === KIND.compressed,
      present: kind !== KIND.unallocated,
      placed: isPlaced(kind) && this.#sealed[batch.owners[index] ?? 0] !== true,
    };
  }

  async close(): Promise<void> {
    await this.#extents.close();
  }
}

function isAlike(one: Found, other: Found): boolean {
  return one.present === other.present && one.data === other.data && one.placed === other.placed;
}

/**
 * Compares what two guests would see. Where both disks can only read as zeros nothing is read; past the end of the shorter disk the
 * longer one must be zeros. Null: the same.
 */
export async function compareDisks(
  first: OpenChain,
  second: OpenChain,
  options: CompareDisksOptions,
): Promise<Difference | null> {
  const { strict, onProgress, signal } = options;
  const [a, b] = [new Walk(first, options), new Walk(second, options)];
  const buffers = [new Uint8Array(BUFFER_BYTES), new Uint8Array(BUFFER_BYTES)] as const;
  const total = Math.max(a.size, b.size);
  const common = Math.min(a.size, b.size);
  try {
    for (let at = 0; at < total; ) {
      const [one, other] = [await a.at(at), await b.at(at)];
      const end = Math.min(one.end, other.end, at < common ? common : total);
      if (strict && !isAlike(one, other)) return { reason: 'allocation', offset: at };
      if (one.data || other.data) {
        for (; at < end; at = Math.min(end, at + BUFFER_BYTES)) {
          signal?.throwIfAborted();
          const length = Math.min(BUFFER_BYTES, end - at);
          const offset = await contentDifference(a, b, at, length, buffers);
          if (offset !== null) return { reason: 'content', offset };
          onProgress({ phase: 'compare', done: at + length, total });
        }
      }
      at = end;
      onProgress({ phase: 'compare', done: at, total });
    }
    return null;
  } finally {
    await a.close();
    await b.close();
  }
}

async function contentDifference(
  a: Walk,
  b: Walk,
  at: number,
  length: number,
  [first, second]: readonly [Uint8Array, Uint8Array],
): Promise<number | null> {
  const [one, other] = [first.subarray(0, length), second.subarray(0, length)];
  await orExit(EXIT.read, a.view(guestOffset(at), one));
  await orExit(EXIT.read, b.view(guestOffset(at), other));
  if (Buffer.compare(one, other) === 0) return null;
  const byte = one.findIndex((value, index) => value !== other[index]);
  return at + byte - (byte % SECTOR_BYTES);
}
