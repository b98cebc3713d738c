import type { LayerFacts } from '@downfold/chain';
import { type ChainView, ExtentCursor, KIND } from '@downfold/commit';
import { guestOffset, rangeBetween } from '@downfold/units';

/** [from, to) of a virtual disk. */
export type Span = readonly [from: number, to: number];

/**
 * Where an image leaves a range to what lies below it, asked in ascending order. Past its end an image decides: it reads as zeros.
 * Null stands for an image that decides nothing.
 */
export class Shadow {
  readonly #runs: ExtentCursor | null;
  readonly #size: number;

  constructor(view: ChainView, image: LayerFacts | null, from: number, to: number) {
    this.#size = image === null ? Number.POSITIVE_INFINITY : image.geometry.virtualSize;
    const end = Math.min(to, this.#size);
    this.#runs =
      image === null || end <= from
        ? null
        : new ExtentCursor(view.extents(image.node, rangeBetween(guestOffset(from), end)));
  }

  /** The parts of [from, to) that the image leaves to what lies below. */
  async openIn(from: number, to: number): Promise<readonly Span[]> {
    const end = Math.min(to, this.#size);
    if (this.#runs === null) return from < end ? [[from, end]] : [];
    const open: Span[] = [];
    for (let at = from; at < end; ) {
      const batch = await this.#runs.to(at);
      if (batch === null) break;
      const { index } = this.#runs;
      const stop = Math.min(end, batch.ends[index] as number);
      if (batch.kinds[index] === KIND.unallocated) open.push([at, stop]);
      at = stop;
    }
    return open;
  }

  async close(): Promise<void> {
    await this.#runs?.close();
  }
}
