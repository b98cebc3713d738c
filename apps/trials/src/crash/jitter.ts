import type { BackendDriver, FileRun, StorageDriver } from '@downfold/storage';
import type { ByteLength, HostOffset, HostRange } from '@downfold/units';
import type { Draw } from '../tools/draw.ts';

/** Turns of the event loop's queue that an operation waits at most. */
const MOST_TURNS = 12;

/**
 * A backend whose operations take different times, drawn from a seed: what runs at the same time ends in another order, as
 * it does on a real disk. Same seed, same order.
 */
export function jittered(driver: BackendDriver, random: Draw): BackendDriver {
  const wait = async (): Promise<void> => {
    for (let turns = random.integer(MOST_TURNS); turns > 0; turns--) await Promise.resolve();
  };
  return {
    ...driver,
    open: async (path, mode) => new JitteredFile(await driver.open(path, mode), wait),
    create: async (path, options) => new JitteredFile(await driver.create(path, options), wait),
    flushDirectory: async (path, barrier) => {
      await driver.flushDirectory(path, barrier);
      await wait();
    },
  };
}

class JitteredFile implements StorageDriver {
  readonly label: string;
  readonly writable: boolean;
  readonly supports: StorageDriver['supports'];
  readonly identity: StorageDriver['identity'];
  readonly descriptor = null;
  readonly #file: StorageDriver;
  readonly #wait: () => Promise<void>;

  constructor(file: StorageDriver, wait: () => Promise<void>) {
    this.#file = file;
    this.#wait = wait;
    this.label = file.label;
    this.writable = file.writable;
    this.supports = file.supports;
    this.identity = file.identity;
  }

  length(): Promise<ByteLength> {
    return this.#file.length();
  }

  async read(offset: HostOffset, target: Uint8Array): Promise<number> {
    await this.#wait();
    return await this.#file.read(offset, target);
  }

  async runAt(offset: HostOffset): Promise<FileRun> {
    await this.#wait();
    return await this.#file.runAt(offset);
  }

  async write(offset: HostOffset, source: Uint8Array, what: string): Promise<void> {
    await this.#wait();
    await this.#file.write(offset, source, what);
  }

  async writeZeroes(range: HostRange, what: string): Promise<void> {
    await this.#wait();
    await this.#file.writeZeroes(range, what);
  }

  /** Through the wrapper's buffer, so that a copy too is a read and a write that others come between. */
  async copyFrom(): Promise<number> {
    return 0;
  }

  async discard(range: HostRange): Promise<void> {
    await this.#wait();
    await this.#file.discard(range);
  }

  async setLength(length: ByteLength): Promise<void> {
    await this.#wait();
    await this.#file.setLength(length);
  }

  /** What changes while the caller waits is not covered. */
  async flush(barrier: string): Promise<void> {
    await this.#file.flush(barrier);
    await this.#wait();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#file[Symbol.asyncDispose]();
  }
}
