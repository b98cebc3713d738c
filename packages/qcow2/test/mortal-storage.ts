import type { Storage } from '@downfold/storage';

/** A file of a process that can be killed: from then on nothing that it does reaches the file. */
export class MortalStorage implements Storage {
  /** Barrier at whose flush the process dies; null: at none. */
  killAt: string | null = null;
  /** Writes and flushes until it dies. */
  lives: number = Number.POSITIVE_INFINITY;
  readonly #storage: Storage;

  constructor(storage: Storage) {
    this.#storage = storage;
  }

  get label(): string {
    return this.#storage.label;
  }
  get writable(): boolean {
    return this.#storage.writable;
  }
  get supports(): Storage['supports'] {
    return this.#storage.supports;
  }
  get identity(): Storage['identity'] {
    return this.#storage.identity;
  }
  get descriptor(): null {
    return null;
  }

  readonly length: Storage['length'] = async () => this.#alive().length();
  readonly read: Storage['read'] = async (...args) => this.#alive().read(...args);
  readonly runAt: Storage['runAt'] = async (...args) => this.#alive().runAt(...args);
  readonly write: Storage['write'] = async (...args) => this.#mortal().write(...args);
  readonly writeZeroes: Storage['writeZeroes'] = async (...args) =>
    this.#mortal().writeZeroes(...args);
  readonly copyFrom: Storage['copyFrom'] = async (...args) => this.#mortal().copyFrom(...args);
  readonly discard: Storage['discard'] = async (...args) => this.#mortal().discard(...args);
  readonly setLength: Storage['setLength'] = async (...args) => this.#mortal().setLength(...args);
  readonly flush: Storage['flush'] = async (barrier) => {
    if (barrier === this.killAt) this.lives = 0;
    await this.#mortal().flush(barrier);
  };

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#storage[Symbol.asyncDispose]();
  }

  #mortal(): Storage {
    this.lives--;
    return this.#alive();
  }

  #alive(): Storage {
    if (this.lives < 0) throw new Error('killed');
    return this.#storage;
  }
}
