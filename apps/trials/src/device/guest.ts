import type { CaseContext } from '@downfold/compliance';
import type { Device } from '@downfold/device';
import { type GuestRange, guestOffset, rangeBetween } from '@downfold/units';
import { describeSector, SECTOR, stamp, stamps } from './stamp.ts';

/** Requests in flight at most. */
const DEPTH = 12;

/** One change of a sector. */
interface Change {
  /** 0: it became zeros. */
  readonly sequence: number;
  /** When it was called, and from when on it must survive a crash: numbers of the recording's log. */
  readonly called: number;
  promised: number;
}

/** What a guest is made with. */
export interface GuestParts {
  readonly device: Device;
  /** What the disk shows; durable. */
  readonly old: Uint8Array;
  readonly draw: CaseContext;
  /** The length of the log. */
  now(): number;
}

/**
 * A guest that keeps random requests in flight and knows what it must find: at once the state when a read was called (overlapping requests keep
 * their order), and after a crash no sector older than what it was promised. Sectors say what they are: address, sequence, checksum.
 */
export class Guest {
  readonly mistakes: string[] = [];
  readonly #parts: GuestParts;
  readonly #sectors: Change[][];
  #resolved: Change[] = [];
  #sequence = 0;

  constructor(parts: GuestParts) {
    this.#parts = parts;
    this.#sectors = Array.from({ length: parts.device.size / SECTOR }, () => [
      { sequence: OLD, called: 0, promised: 0 },
    ]);
  }

  /** Sends `count` requests at least, and goes on while `more` says so. */
  async run(count: number, more: () => boolean = () => false): Promise<void> {
    const flying = new Set<Promise<void>>();
    for (let done = 0; done < count || more(); done++) {
      const work = this.#request().finally(() => flying.delete(work));
      flying.add(work);
      const pause = this.#parts.draw.random() < 0.1 || done >= count;
      if (flying.size >= DEPTH || pause) await Promise.race(flying);
    }
    await Promise.all(flying);
  }

  /** What is wrong with the disk when nothing is under way. */
  wrongNow(found: Uint8Array): string | null {
    return this.#wrong(found, (changes) => changes.slice(-1));
  }

  /** What is wrong with the disk after a crash at `at`. */
  wrongAfter(at: number, found: Uint8Array): string | null {
    return this.#wrong(found, (changes) => {
      const durable = changes.findLastIndex(({ promised }) => promised <= at);
      return changes.slice(durable).filter(({ called }) => called <= at);
    });
  }

  #wrong(found: Uint8Array, legalOf: (changes: Change[]) => readonly Change[]): string | null {
    for (const [sector, changes] of this.#sectors.entries()) {
      const bytes = found.subarray(sector * SECTOR, (sector + 1) * SECTOR);
      const legal = legalOf(changes);
      if (!legal.some(({ sequence }) => this.#content(sector, sequence).equals(bytes)))
        return `sector ${sector} is ${describeSector(bytes)}, not one of ${legal.map(({ sequence }) => sequence)}`;
    }
    return null;
  }

  #content(sector: number, sequence: number): Buffer {
    const { old } = this.#parts;
    if (sequence === OLD) return Buffer.from(old.subarray(sector * SECTOR, (sector + 1) * SECTOR));
    return sequence === 0 ? Buffer.alloc(SECTOR) : stamp(sector, sequence);
  }

  #request(): Promise<void> {
    const { device, draw } = this.#parts;
    const { integer, random } = draw;
    const first = integer(this.#sectors.length);
    const count = 1 + integer(Math.min(random() < 0.1 ? 64 : 12, this.#sectors.length - first));
    const kind = random();
    if (kind < 0.35) return this.#read(first, count);
    if (kind < 0.45) return this.#flush();
    const fua = random() < 0.2;
    if (kind < 0.5) return this.#discard(first, count, fua);
    const sequence = kind < 0.88 ? ++this.#sequence : 0;
    const made = this.#made(first, count, sequence);
    const range = rangeOf(first, count);
    if (sequence === 0)
      return this.#promise(device.writeZeroes(range, { fua, mayUnmap: random() < 0.8 }), made, fua);
    const source = stamps(first, count, sequence);
    return this.#promise(device.write(range.offset, source, { fua }), made, fua);
  }

  /** Whole units of the active layer; of parts nothing is promised. */
  #discard(first: number, count: number, fua: boolean): Promise<void> {
    const { device } = this.#parts;
    const active = device.layers.at(-1)?.image.geometry.allocationGranularity ?? 1;
    // another layer may be the active one when the turn of this request comes
    const unit = Math.max(LARGEST_UNIT, active) / SECTOR;
    const start = first - (first % unit);
    const length = Math.min(this.#sectors.length - start, Math.ceil(count / unit) * unit);
    const made = this.#made(start, length, 0);
    return this.#promise(device.discard(rangeOf(start, length), { fua }), made, fua);
  }

  #made(first: number, count: number, sequence: number): Change[] {
    const made: Change[] = [];
    for (const changes of this.#sectors.slice(first, first + count)) {
      const called = this.#parts.now();
      const change = { sequence, called, promised: Number.POSITIVE_INFINITY };
      changes.push(change);
      made.push(change);
    }
    return made;
  }

  async #promise(work: Promise<void>, made: readonly Change[], fua: boolean): Promise<void> {
    await work;
    if (fua) this.#promised(made);
    else this.#resolved.push(...made);
  }

  async #flush(): Promise<void> {
    const covered = this.#resolved.splice(0);
    await this.#parts.device.flush();
    this.#promised(covered);
  }

  #promised(made: readonly Change[]): void {
    for (const change of made) change.promised = Math.min(change.promised, this.#parts.now());
  }

  async #read(first: number, count: number): Promise<void> {
    const expected = this.#sectors
      .slice(first, first + count)
      .map((changes) => (changes.at(-1) as Change).sequence);
    const target = new Uint8Array(count * SECTOR);
    await this.#parts.device.read(guestOffset(first * SECTOR), target);
    for (const [index, sequence] of expected.entries()) {
      const found = target.subarray(index * SECTOR, (index + 1) * SECTOR);
      if (!this.#content(first + index, sequence).equals(found))
        this.mistakes.push(
          `sector ${first + index} read as ${describeSector(found)}, not ${sequence}`,
        );
    }
  }
}

/** Sequence of what was there before the guest. */
const OLD = -1;
/** Every layer of a trial has units of so many bytes at most. */
const LARGEST_UNIT = 65_536;

function rangeOf(first: number, count: number): GuestRange {
  return rangeBetween(guestOffset(first * SECTOR), (first + count) * SECTOR);
}
