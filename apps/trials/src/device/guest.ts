import type { CaseContext } from '@downfold/compliance';
import type { Device } from '@downfold/device';
import { type ByteLength, type GuestOffset, guestOffset } from '@downfold/units';

export const SECTOR = 512;
/** Requests in flight at most. */
const DEPTH = 12;
/** Values of sectors: 0 is zeros. */
const VALUES = 251;

/** One change of a sector. */
interface Change {
  readonly value: number;
  /** When it was called, and from when on it must survive a crash: numbers of the recording's log. */
  readonly called: number;
  promised: number;
}

/**
 * A guest that keeps random requests in flight and knows what it must find: at once the state when a read was called (overlapping requests keep
 * their order), and after a crash no sector older than what it was promised.
 */
export class Guest {
  readonly mistakes: string[] = [];
  readonly #device: Device;
  readonly #draw: CaseContext;
  readonly #now: () => number;
  readonly #sectors: Change[][];
  #resolved: Change[] = [];
  #sequence = 0;

  /** @param old what the sectors show; durable. @param now the length of the log */
  constructor(device: Device, old: Uint8Array, draw: CaseContext, now: () => number) {
    this.#device = device;
    this.#draw = draw;
    this.#now = now;
    this.#sectors = Array.from({ length: device.size / SECTOR }, (_, sector) => [
      { value: old[sector * SECTOR] as number, called: 0, promised: 0 },
    ]);
  }

  async run(count: number): Promise<void> {
    const flying = new Set<Promise<void>>();
    for (let done = 0; done < count; done++) {
      const work = this.#request().finally(() => flying.delete(work));
      flying.add(work);
      if (flying.size >= DEPTH || this.#draw.random() < 0.1) await Promise.race(flying);
    }
    await Promise.all(flying);
  }

  /** What is wrong with the disk after a crash at `at`. */
  wrongAfter(at: number, found: Uint8Array): string | null {
    for (const [sector, changes] of this.#sectors.entries()) {
      const bytes = found.subarray(sector * SECTOR, (sector + 1) * SECTOR);
      const value = bytes[0] as number;
      if (bytes.some((byte) => byte !== value)) return `sector ${sector} is torn`;
      const durable = changes.findLastIndex(({ promised }) => promised <= at);
      const legal = changes.slice(durable).filter(({ called }) => called <= at);
      if (!legal.some((change) => change.value === value))
        return `sector ${sector} is ${value}, not one of ${legal.map((change) => change.value)}`;
    }
    return null;
  }

  #request(): Promise<void> {
    const { integer, random } = this.#draw;
    const first = integer(this.#sectors.length);
    const count = 1 + integer(Math.min(random() < 0.1 ? 64 : 12, this.#sectors.length - first));
    const draw = random();
    const range = {
      offset: guestOffset(first * SECTOR),
      length: (count * SECTOR) as ByteLength,
    };
    if (draw < 0.35) return this.#read(first, count);
    if (draw < 0.45) return this.#flush();
    const fua = random() < 0.2;
    const value = draw < 0.85 ? 1 + (this.#sequence++ % VALUES) : 0;
    const made = this.#made(first, count, value);
    const source = new Uint8Array(count * SECTOR).fill(value);
    return this.#promise(
      value === 0
        ? this.#device.writeZeroes(range, { fua, mayUnmap: random() < 0.8 })
        : this.#device.write(range.offset, source, { fua }),
      made,
      fua,
    );
  }

  #made(first: number, count: number, value: number): Change[] {
    const made: Change[] = [];
    for (const changes of this.#sectors.slice(first, first + count)) {
      const change = { value, called: this.#now(), promised: Number.POSITIVE_INFINITY };
      changes.push(change);
      made.push(change);
    }
    return made;
  }

  async #promise(work: Promise<void>, made: readonly Change[], fua: boolean): Promise<void> {
    await work;
    if (fua) for (const change of made) change.promised = Math.min(change.promised, this.#now());
    else this.#resolved.push(...made);
  }

  async #flush(): Promise<void> {
    const covered = [...this.#resolved];
    await this.#device.flush();
    for (const change of covered) change.promised = Math.min(change.promised, this.#now());
  }

  async #read(first: number, count: number): Promise<void> {
    const expected = this.#sectors
      .slice(first, first + count)
      .map((changes) => changes.at(-1)?.value);
    const target = new Uint8Array(count * SECTOR);
    await this.#device.read((first * SECTOR) as GuestOffset, target);
    const wrong = target.findIndex((byte, at) => byte !== expected[Math.floor(at / SECTOR)]);
    if (wrong !== -1)
      this.mistakes.push(
        `byte ${first * SECTOR + wrong} read as ${target[wrong]}, not ${expected[Math.floor(wrong / SECTOR)]}`,
      );
  }
}
