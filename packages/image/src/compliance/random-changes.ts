import type { CaseContext } from '@downfold/compliance';
import type { CopiedPart, CopySource, Layer } from './layer.ts';
import type { ImageTestBed } from './test-bed.ts';

/** Disks are not grown beyond this many times their first size. */
const GROWTH = 3;

/** Draws changes of a layer. */
export class RandomChanges {
  readonly #layer: Layer;
  readonly #bed: ImageTestBed;
  readonly #context: CaseContext;
  readonly #source: CopySource;

  constructor(layer: Layer, bed: ImageTestBed, context: CaseContext, source: CopySource) {
    this.#layer = layer;
    this.#bed = bed;
    this.#context = context;
    this.#source = source;
  }

  /** Makes one change. An error says which. */
  async next(): Promise<void> {
    const { integer, random } = this.#context;
    const { size } = this.#layer;
    const { cluster } = this.#bed;
    const at = this.#edge(integer(size));
    const most = Math.min(size - at, cluster * (random() < 0.2 ? 8 : 2));
    const length = Math.max(0, this.#edge(at + 1 + integer(most)) - at);
    const name = this.#draw();
    try {
      await this.#run(name, at, Math.min(length, size - at));
    } catch (cause) {
      throw new Error(`${name} of ${length} at ${at}: ${(cause as Error).message}`, { cause });
    }
  }

  async #run(name: string, at: number, length: number): Promise<void> {
    const layer = this.#layer;
    const { integer } = this.#context;
    if (name === 'write') return layer.write(at, length);
    if (name === 'copyFrom') return this.#copy(at, length);
    if (name === 'writeZeroes') return layer.writeZeroes(at, length);
    if (name === 'deallocate') return layer.deallocate(at, length);
    const grown = layer.size + 512 * (1 + integer(this.#bed.cluster / 256));
    if (grown <= this.#bed.size * GROWTH) await layer.resize(grown);
  }

  /** In one piece, or in several: neighbours in any order, some of them left out. */
  async #copy(at: number, length: number): Promise<void> {
    const { integer } = this.#context;
    const from = (): number => integer(this.#source.bytes.length);
    if (integer(2) === 0) return this.#layer.copyFrom(this.#source, from(), at, length);
    const parts: CopiedPart[] = [];
    for (let done = at; done < at + length; ) {
      const next = this.#edge(done + 1 + integer(at + length - done));
      const end = Math.min(at + length, Math.max(done + 1, next));
      const part = { from: from(), at: done, length: end - done };
      if (integer(5) > 0)
        parts.splice(integer(3) === 0 ? integer(parts.length + 1) : parts.length, 0, part);
      done = end;
    }
    await this.#layer.copyPieces(this.#source, parts);
  }

  #draw(): string {
    const drawn = this.#context.random();
    if (drawn < 0.35) return 'write';
    if (drawn < 0.5) return 'copyFrom';
    if (drawn < 0.75) return 'writeZeroes';
    if (drawn < 0.92) return this.#bed.abilities.has('deallocate') ? 'deallocate' : 'write';
    return this.#bed.abilities.has('grow') ? 'resize' : 'write';
  }

  /** `offset`, or the edge of a cluster near it: a third each. */
  #edge(offset: number): number {
    const drawn = this.#context.integer(3);
    if (drawn === 0) return offset;
    const down = offset - (offset % this.#bed.cluster);
    return drawn === 1 ? down : Math.min(this.#layer.size, down + this.#bed.cluster);
  }
}
