import { type Cell, contentOf, dataCell, isPlain, UNALLOCATED } from './cells.ts';
import type { Durability } from './durability.ts';
import type { ModelImages } from './model-images.ts';
import type { Pool } from './pool.ts';
import { Violation } from './violation.ts';
import { Window } from './window.ts';

/**
 * The disk in use whose active layer is committed, as the engine keeps it: what its client writes goes to the image that is the disk, is durable
 * when it is acknowledged, and is noted since the run began; the pivot copies what was noted into base.
 */
export class ModelDisk {
  readonly #pool: Pool;
  readonly #disks: Durability;
  readonly #images: ModelImages;
  readonly #dirty: Set<number> = new Set();

  constructor(pool: Pool, disks: Durability, images: ModelImages) {
    this.#pool = pool;
    this.#disks = disks;
    this.#images = images;
  }

  /** The image that is the disk. */
  get #image(): number {
    return this.#disks.journal.pivoted ? this.#pool.base : this.#pool.top;
  }

  /** The client of the setting writes, when so many steps were taken (null: the last one was), and has not yet. */
  writes(steps: number | null): void {
    const { client } = this.#pool.setting;
    if (client == null || this.#disks.journal.acknowledged) return;
    if (steps !== null && client.after !== steps) return;
    const { sector } = client;
    const [start, cells] = this.#completed(sector, dataCell(this.#pool.written));
    this.#disks.harden((disks) => {
      for (const [index, cell] of cells.entries()) disks.setCell(this.#image, start + index, cell);
    });
    this.#dirty.add(sector);
    this.#disks.note({ acknowledged: true });
  }

  /** What base must hold durably is what it holds in memory; then what changed meanwhile; then it is the disk. */
  pivot(): void {
    const { base, top } = this.#pool;
    if (this.#disks.pending.some(({ image }) => image === base))
      throw new Violation(
        'order/pivot-after-barrier',
        `the disk pivots to ${this.#pool.nodeOf(base)}; what was written to it may be lost`,
      );
    for (const sector of this.#dirty) {
      const place = { image: base, row: base, start: sector, end: sector + 1 };
      const before = [...this.#images.written];
      this.#images.write(place, [this.#disks.now.shows(top, sector)], new Window());
      // the engine's, not the strategy's
      this.#images.written.splice(0, before.length, ...before);
    }
    this.#disks.flush(new Set([base]));
    this.#disks.note({ pivoted: true });
  }

  /** The unit of a sector that is written: its first sector, and its cells. */
  #completed(sector: number, cell: Cell): readonly [number, readonly Cell[]] {
    const { now } = this.#disks;
    const image = this.#image;
    if (isPlain(now.cell(image, sector))) return [sector, [cell]];
    const { unit } = this.#pool.image(image);
    const start = sector - (sector % unit);
    const end = Math.min(now.size(image), start + unit);
    const cells: Cell[] = [];
    for (let at = start; at < end; at++) {
      const held = now.cell(image, at);
      const shown = held === UNALLOCATED ? now.shows(image, at) : contentOf(held);
      cells.push(at === sector ? cell : dataCell(shown));
    }
    return [start, cells];
  }
}
