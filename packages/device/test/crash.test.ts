import { viewOf } from '@downfold/chain';
import { caseContext } from '@downfold/compliance';
import {
  crashStates,
  MemoryDisk,
  memoryBackend,
  type Recording,
  record,
} from '@downfold/storage-memory';
import { guestOffset } from '@downfold/units';
import { describe, expect, it } from 'vitest';
import { Device } from '../src/index.ts';
import { jitter, put, range, type ToyLayer, toyLayer } from './support.ts';
import { CELL, ToyImage } from './toy-image.ts';

const CELLS = 6;
const size = CELLS * CELL;
const SECTOR = 512;

/** A value that a sector may have, from the moment that it was asked for. */
interface Written {
  readonly sequence: number;
  /** The log's length when it was called. */
  readonly called: number;
  /** The log's length when it was promised to be durable. */
  promised: number;
}

/** Writes whole sectors, each with a number of its own, and knows what must be found after a crash. */
class Ledger {
  readonly #recording: Recording;
  readonly #device: Device;
  readonly #sectors: Written[][] = Array.from({ length: size / SECTOR }, () => []);
  #sequence = 0;

  constructor(recording: Recording, device: Device) {
    this.#recording = recording;
    this.#device = device;
  }

  async write(first: number, count: number, fua: boolean): Promise<void> {
    const sequence = ++this.#sequence;
    const written = Array.from({ length: count }, (): Written => {
      return { sequence, called: this.#recording.log.length, promised: Number.POSITIVE_INFINITY };
    });
    for (const [index, one] of written.entries()) this.#sectors[first + index]?.push(one);
    const source = new Uint8Array(count * SECTOR).fill(sequence);
    await this.#device.write(guestOffset(first * SECTOR), source, { fua });
    if (fua) this.#promise(written);
    else this.#resolved.push(...written);
  }

  readonly #resolved: Written[] = [];

  async flush(): Promise<void> {
    const covered = [...this.#resolved];
    await this.#device.flush();
    this.#promise(covered);
  }

  /** What a sector shows after a crash at `at` must be a value not older than the last promised one, and not from later. */
  assertLegal(sector: number, found: number, at: number, name: string): void {
    const all = this.#sectors[sector] as Written[];
    const durable = all.findLast(({ promised }) => promised <= at)?.sequence ?? 0;
    const legal = all.filter(({ sequence, called }) => sequence >= durable && called <= at);
    const values = [...(durable === 0 ? [0] : []), ...legal.map(({ sequence }) => sequence)];
    if (!values.includes(found))
      throw new Error(`${name}: sector ${sector} is ${found}, not one of ${values}`);
  }

  #promise(written: readonly Written[]): void {
    for (const one of written) one.promised = Math.min(one.promised, this.#recording.log.length);
  }
}

async function reopened(disk: MemoryDisk, layers: readonly ToyLayer[]): Promise<ToyLayer[]> {
  const backend = memoryBackend(disk);
  return Promise.all(
    layers.map(async ({ facts }) => {
      const storage = await backend.open(facts.path, 'read');
      return { facts, image: await ToyImage.open(storage, { size, writable: false }) };
    }),
  );
}

/** Checks every crash state; returns how many there were. */
async function explore(
  recording: Recording,
  check: (disk: MemoryDisk, at: number, name: string) => Promise<void>,
): Promise<number> {
  let states = 0;
  for (const { disk, at, name } of crashStates(recording, {
    tear: true,
    exhaustive: 4,
    samples: 6,
  })) {
    states++;
    await check(disk, at, name);
  }
  return states;
}

describe('after a crash', () => {
  it.each([1, 2, 3])(
    'what was flushed or written through is there, in every legal state: seed %i',
    async (seed) => {
      const { integer, random } = caseContext(seed);
      const setup = new MemoryDisk();
      const prepared = [
        await toyLayer({ size }, memoryBackend(setup)),
        await toyLayer({ size }, memoryBackend(setup)),
      ];
      for (const { image } of prepared) await image.flush();
      const recording = record(setup);
      const layers = await Promise.all(
        prepared.map(async ({ facts }, index) => {
          const storage = await recording.backend.open(facts.path, 'write');
          return {
            facts,
            image: await ToyImage.open(storage, { size, pause: jitter(seed + index) }),
          };
        }),
      );
      const device = new Device({ layers });
      const ledger = new Ledger(recording, device);
      const flying: Promise<void>[] = [];
      for (let done = 0; done < 40; done++) {
        const first = integer(size / SECTOR - 4);
        flying.push(
          random() < 0.8 ? ledger.write(first, 1 + integer(4), random() < 0.3) : ledger.flush(),
        );
        if (random() < 0.5) await flying[integer(flying.length)];
      }
      await Promise.all(flying);
      const states = await explore(recording, async (disk, at, name) => {
        const found = new Uint8Array(size);
        await viewOf(await reopened(disk, layers), 1)(guestOffset(0), found);
        for (let sector = 0; sector < size / SECTOR; sector++) {
          const bytes = found.subarray(sector * SECTOR, (sector + 1) * SECTOR);
          expect(bytes.every((byte) => byte === bytes[0])).toBe(true);
          ledger.assertLegal(sector, bytes[0] as number, at, name);
        }
      });
      expect(states).toBeGreaterThan(400);
    },
  );

  it("a guest's flush covers what a job wrote to a lower layer and never flushed (QEMU's is lost)", async () => {
    const recording = record(new MemoryDisk());
    const [base, top] = [
      await toyLayer({ size }, recording.backend),
      await toyLayer({ size }, recording.backend),
    ];
    await recording.backend.flushDirectory('/', 'test');
    for (const { image } of [base, top]) await image.flush();
    const device = new Device({ layers: [base, top] });
    await device.holding(range(0, CELL), 'changes', () => put(base, 7, 0));
    await device.write(guestOffset(CELL), new Uint8Array(CELL).fill(8));
    await device.flush();
    const promised = recording.log.length;
    await device.write(guestOffset(CELL), new Uint8Array(CELL).fill(9));
    const states = await explore(recording, async (disk, at, name) => {
      if (at < promised) return;
      const found = new Uint8Array(2 * CELL);
      await viewOf(await reopened(disk, [base, top]), 1)(guestOffset(0), found);
      expect([found[0], (found[CELL] as number) >= 8], name).toEqual([7, true]);
    });
    expect(states).toBeGreaterThan(10);
  });
});
