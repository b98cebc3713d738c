import type { Storage } from '@downfold/storage';

/** Name of a read, which is held up once it has its bytes. */
export const READ = 'read';

/** A file of which one flush, read or kind of write can be held up: the rest goes on meanwhile. */
export class GatedStorage implements Storage {
  readonly #storage: Storage;
  #held: { readonly name: string; reached: () => void; readonly open: Promise<void> } | null = null;

  constructor(storage: Storage) {
    this.#storage = storage;
  }

  /**
   * Holds the next flush of this barrier, write of this kind, or read. `reached` resolves when it has come; `release` lets it through, as all after it
   * are.
   */
  hold(name: string): { readonly reached: Promise<void>; readonly release: () => void } {
    const reached = Promise.withResolvers<void>();
    const open = Promise.withResolvers<void>();
    this.#held = { name, reached: reached.resolve, open: open.promise };
    return {
      reached: reached.promise,
      release: () => {
        open.resolve();
      },
    };
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

  readonly length: Storage['length'] = () => this.#storage.length();
  readonly read: Storage['read'] = async (...args) => {
    await this.#storage.read(...args);
    await this.#gate(READ);
  };
  readonly runAt: Storage['runAt'] = (...args) => this.#storage.runAt(...args);
  readonly write: Storage['write'] = async (offset, source, options) => {
    await this.#gate(options?.what ?? '');
    await this.#storage.write(offset, source, options);
  };
  readonly writeZeroes: Storage['writeZeroes'] = (...args) => this.#storage.writeZeroes(...args);
  readonly copyFrom: Storage['copyFrom'] = async (pieces, options) => {
    await this.#gate(options?.what ?? '');
    await this.#storage.copyFrom(pieces, options);
  };
  readonly discard: Storage['discard'] = (...args) => this.#storage.discard(...args);
  readonly setLength: Storage['setLength'] = (...args) => this.#storage.setLength(...args);
  readonly flush: Storage['flush'] = async (barrier) => {
    await this.#gate(barrier);
    await this.#storage.flush(barrier);
  };

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#storage[Symbol.asyncDispose]();
  }

  async #gate(name: string): Promise<void> {
    const held = this.#held;
    if (held?.name !== name) return;
    this.#held = null;
    held.reached();
    await held.open;
  }
}
