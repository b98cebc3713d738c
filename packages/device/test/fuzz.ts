import { type ChainLayer, subchainExtents, viewOf } from '@downfold/chain';
import { type CaseContext, caseContext } from '@downfold/compliance';
import { alignDown, alignUp, byteLength, guestOffset } from '@downfold/units';
import { Device } from '../src/index.ts';
import { jitter, put, range, type ToyLayer, toyLayer } from './support.ts';
import { CELL } from './toy-image.ts';

/** Requests in flight at most. */
const DEPTH = 24;

/**
 * Random requests, many at once, against a flat array that is changed when a request is CALLED. Overlapping requests are promised to happen in
 * the order of their calls and whole, so a read must show the array as it was when it was called: the strictest of all serial orders.
 */
export class Fuzz {
  /** Reads that showed something else. */
  readonly mistakes: string[] = [];
  /** Chains that took the place of another. */
  replaced = 0;
  readonly device: Device;
  readonly #draw: CaseContext;
  readonly #pause: () => Promise<void>;
  #model: Uint8Array;
  #sequence = 0;
  readonly #flying: Set<Promise<void>> = new Set();

  private constructor(device: Device, model: Uint8Array, seed: number) {
    this.device = device;
    this.#model = model;
    this.#draw = caseContext(seed);
    this.#pause = jitter(seed + 1000);
  }

  /** On a chain whose lower layers differ in size, with random content. */
  static async on(depth: number, seed: number): Promise<Fuzz> {
    const draw = caseContext(seed + 500);
    const layers: ToyLayer[] = [];
    for (let index = 0; index < depth; index++) {
      const size = index === depth - 1 ? 40 * CELL - 300 : 512 * (20 + draw.integer(60));
      const layer = await toyLayer({ size, pause: jitter(seed + index) });
      const cells = Array.from({ length: Math.ceil(size / CELL) }, (_, cell) => cell);
      await put(layer, 200 + index, ...cells.filter(() => draw.random() < 0.3));
      layers.push(layer);
    }
    const device = new Device({ layers });
    const model = new Uint8Array(device.size);
    await viewOf(layers, depth - 1)(guestOffset(0), model);
    return new Fuzz(device, model, seed);
  }

  /** Keeps random requests in flight; `live`: with sections that replace the chain. */
  async run(count: number, { live = false }: { readonly live?: boolean } = {}): Promise<void> {
    for (let done = 0; done < count; done++) {
      const work = live && this.#draw.random() < 0.08 ? this.#section() : this.#request();
      const flying = work.finally(() => this.#flying.delete(flying));
      this.#flying.add(flying);
      if (this.#flying.size >= DEPTH) await Promise.race(this.#flying);
      else if (this.#draw.random() < 0.3) await this.#pause();
    }
    await Promise.all(this.#flying);
  }

  /** Reads all, closes, and throws when something differs. */
  async finish(): Promise<void> {
    await this.#read(0, this.device.size);
    await this.device.close();
    if (this.mistakes.length > 0) throw new Error(this.mistakes.join('\n'));
  }

  #request(): Promise<void> {
    const { integer, random } = this.#draw;
    const at = integer(this.device.size);
    const most = random() < 0.1 ? 8 * CELL : 2 * CELL;
    const length = Math.min(this.device.size - at, integer(most));
    const fua = random() < 0.1;
    const draw = random();
    if (draw < 0.4) return this.#read(at, length);
    if (draw < 0.75) return this.#write(at, length, fua);
    if (draw < 0.85) {
      this.#model.fill(0, at, at + length);
      return this.device.writeZeroes(range(at, length), { fua, mayUnmap: random() < 0.7 });
    }
    if (draw < 0.95) {
      const end = at + length === this.device.size ? at + length : alignDown(at + length, CELL);
      this.#model.fill(0, alignUp(at, CELL), Math.max(alignUp(at, CELL), end));
      return this.device.discard(range(at, length));
    }
    return this.device.flush();
  }

  async #write(at: number, length: number, fua: boolean): Promise<void> {
    const sequence = ++this.#sequence;
    const source = Uint8Array.from(
      { length },
      (_, index) => (sequence * 31 + ((at + index) >> 9)) & 255,
    );
    this.#model.set(source, at);
    await this.device.write(guestOffset(at), source, { fua });
  }

  async #read(at: number, length: number): Promise<void> {
    const expected = this.#model.slice(at, at + length);
    const target = new Uint8Array(length).fill(0xee);
    await this.device.read(guestOffset(at), target);
    const wrong = target.findIndex((byte, index) => byte !== expected[index]);
    if (wrong !== -1)
      this.mistakes.push(`byte ${at + wrong} is ${target[wrong]}, not ${expected[wrong]}`);
  }

  /** A section that puts an overlay on top, or merges one layer into the one below it: a dropped subchain, or a pivot when it is the top. */
  async #section(): Promise<void> {
    const { integer, random } = this.#draw;
    const [grow, isUp, which, seed] = [random() < 0.3, random() < 0.5, random(), integer(1 << 30)];
    const overlay = isUp ? await toyLayer({ size: 1, pause: jitter(seed) }) : null;
    if (overlay !== null && grow) this.#grow(this.#model.length + 700);
    const size = this.#model.length;
    await this.device.drained(async (section) => {
      const { layers } = section;
      await this.#pause();
      if (overlay !== null) {
        await overlay.image.resize(byteLength(size), { fill: null });
        await section.replace([...layers, overlay]);
      } else if (layers.length > 1) {
        const upper = 1 + Math.floor(which * (layers.length - 1));
        await mergeDown(layers, upper);
        await section.replace(layers.toSpliced(upper, 1), { close: true });
      }
      this.replaced++;
    });
  }

  #grow(size: number): void {
    const model = new Uint8Array(size);
    model.set(this.#model);
    this.#model = model;
  }
}

/** Makes the layer below `upper` show what `upper` shows, at every byte that layers above may read through. */
export async function mergeDown(layers: readonly ChainLayer[], upper: number): Promise<void> {
  const [above, below] = [layers[upper] as ChainLayer, layers[upper - 1] as ChainLayer];
  const fill = upper === 1 ? null : viewOf(layers, upper - 2);
  const size = above.image.geometry.virtualSize;
  const old = below.image.geometry.virtualSize;
  if (size > old) await below.image.resize(size, { fill });
  const end = Math.max(size, old);
  const merged = subchainExtents(layers, { base: upper - 1, top: upper }, range(0, end));
  for await (const batch of merged)
    for (const extent of batch) {
      if (extent.owner === null) continue;
      const bytes = new Uint8Array(extent.length);
      await viewOf(layers, upper)(extent.offset, bytes);
      await below.image.write(extent.offset, bytes, { fill });
    }
}
