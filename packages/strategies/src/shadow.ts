import type { LayerFacts } from '@downfold/chain';
import type { ChainView } from '@downfold/commit';
import { type GuestOffset, guestOffset, rangeBetween } from '@downfold/units';

/** [from, to) of a virtual disk. */
export type Span = readonly [from: number, to: number];

/** One run of an image: whether it decides there, or leaves it to what lies below. */
interface Run {
  readonly end: number;
  readonly decides: boolean;
}

/**
 * Where an image leaves a range to what lies below it, asked in ascending order. Past its end an image decides: it reads as zeros.
 * Null stands for an image that decides nothing.
 */
export class Shadow {
  readonly #runs: AsyncIterator<readonly Run[]> | null;
  readonly #size: number;
  #batch: readonly Run[] = [];
  #next = 0;

  constructor(view: ChainView, image: LayerFacts | null, from: number, to: number) {
    this.#size = image === null ? Number.POSITIVE_INFINITY : image.geometry.virtualSize;
    const end = Math.min(to, this.#size);
    this.#runs = image === null || end <= from ? null : runsOf(view, image, from, end);
  }

  /** The parts of [from, to) that the image leaves to what lies below. */
  async openIn(from: number, to: number): Promise<readonly Span[]> {
    const end = Math.min(to, this.#size);
    if (this.#runs === null) return from < end ? [[from, end]] : [];
    const open: Span[] = [];
    for (let at = from; at < end; ) {
      const run = this.#batch[this.#next];
      if (run === undefined) {
        const { value, done } = await this.#runs.next();
        if (done === true) break;
        this.#batch = value;
        this.#next = 0;
        continue;
      }
      const stop = Math.min(end, run.end);
      if (!run.decides && stop > at) open.push([at, stop]);
      at = Math.max(at, stop);
      if (run.end <= at) this.#next++;
    }
    return open;
  }

  async close(): Promise<void> {
    await this.#runs?.return?.();
  }
}

async function* runsOf(
  view: ChainView,
  image: LayerFacts,
  from: number,
  to: number,
): AsyncGenerator<readonly Run[], void, undefined> {
  const range = rangeBetween(guestOffset(from) as GuestOffset, to);
  for await (const batch of view.extents(image.node, range))
    yield batch.map(({ offset, length, status }) => ({
      end: offset + length,
      decides: status !== 'unallocated',
    }));
}
