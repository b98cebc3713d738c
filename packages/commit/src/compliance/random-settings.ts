import type { Operation } from '../plan.ts';
import { Draw } from './draw.ts';
import type { Setting, SettingImage } from './setting.ts';

/** Sectors of the longest disk. */
const LONGEST = 6;
/** See `cellOf`. */
const LETTERS = ['-', '-', '-', 'd', 'd', 'd', 'z', 'z', 'c', 'o', 'p', 's'];

/** Pools of any shape: units of one or two sectors side by side, any sizes, images that hang anywhere. Each from a seed of its own. */
export function* randomSettings(
  operation: Operation,
  count: number,
  keep: boolean,
): Generator<Setting, void, undefined> {
  for (let seed = 1; seed <= count; seed++) {
    const draw = new Draw(seed);
    const pool = new RandomPool(draw);
    yield {
      ...(operation === 'rebase' ? pool.rebase() : pool.along(operation)),
      operation,
      siblings: keep && draw.once(2) ? 'keep' : 'invalidate',
      keepUndo: draw.once(4),
      unsafe: operation === 'rebase' && draw.once(8),
      checkpointSectors: draw.of([2, 2, 4, 6, 16]),
      stages: !draw.once(8),
      batch: draw.of([1, 2, 16]),
      slow: draw.once(2),
    };
  }
}

type Shape = Pick<Setting, 'images' | 'leaf' | 'base' | 'top' | 'emptyTop'>;

class RandomPool {
  readonly #draw: Draw;
  readonly #length: number;
  readonly #units: readonly number[];
  readonly #images: SettingImage[] = [];

  constructor(draw: Draw) {
    this.#draw = draw;
    this.#length = 1 + draw.below(LONGEST);
    this.#units = draw.of([[1], [1, 1, 2]]);
  }

  /** A commit or a stream along one chain. */
  along(operation: 'commit' | 'stream'): Shape {
    const draw = this.#draw;
    const commit = operation === 'commit';
    if (draw.once(3)) this.#stack('L');
    const hasBase = commit || draw.once(2);
    if (hasBase) this.#stack('B');
    for (let layer = commit ? 1 : 0; layer <= draw.below(4); layer++) this.#stack(`M${layer}`);
    // a stream needs something to pull
    if (!commit && this.#images.at(-1)?.name !== 'M0') this.#stack('M0');
    this.#stack('T');
    const emptyTop = commit && draw.once(4);
    const leaf = commit && !emptyTop && draw.once(2) ? this.#stack('A') : 'T';
    this.#flatten('T');
    this.#hang(emptyTop ? ['T'] : []);
    return { images: this.#images, leaf, base: hasBase ? 'B' : null, top: 'T', emptyTop };
  }

  /** From one backing file to none, to another of the chain, or to one beside it. */
  rebase(): Shape {
    const draw = this.#draw;
    for (let layer = 0; layer <= draw.below(3); layer++) this.#stack(`M${layer}`);
    const below = this.#images.map(({ name }) => name);
    this.#stack('T');
    this.#flatten('T');
    const kind = draw.below(4);
    let base: string | null = kind === 0 ? null : draw.of(below);
    if (kind > 1) {
      this.#put('N0', kind === 2 ? null : base);
      base = draw.once(2) ? 'N0' : this.#stack('N1');
    }
    this.#hang([]);
    return { images: this.#images, leaf: 'T', base, top: 'T', emptyTop: false };
  }

  /** On top of the last one. */
  #stack(name: string): string {
    return this.#put(name, this.#images.at(-1)?.name ?? null);
  }

  #put(name: string, backing: string | null): string {
    const draw = this.#draw;
    const unit = draw.of(this.#units);
    const size = draw.once(2) ? this.#length : 1 + draw.below(this.#length);
    let cells = '';
    for (let at = 0; at < size; at += unit) cells += draw.of(LETTERS).repeat(unit);
    this.#images.push({ name, backing, cells: cells.slice(0, size), unit, flat: false });
    return name;
  }

  /** Sometimes the lowest image is of a format without allocation. */
  #flatten(top: string): void {
    const lowest = this.#images[0];
    if (lowest === undefined || lowest.name === top || !this.#draw.once(8)) return;
    this.#images[0] = { ...lowest, cells: 'd'.repeat(lowest.cells.length), unit: 1, flat: true };
  }

  /** Images that hang anywhere but from these. */
  #hang(bare: readonly string[]): void {
    for (const name of ['X', 'Y', 'Z']) {
      const hosts = this.#images.map((one) => one.name).filter((one) => !bare.includes(one));
      if (this.#draw.once(3)) this.#put(name, this.#draw.of(hosts));
    }
  }
}
