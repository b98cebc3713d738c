import type { ByteLength, HostOffset, HostRange } from '@downfold/units';
import type { BackendDriver } from '../backend.ts';
import { bytesOfPieces, piecesUpTo } from '../pieces.ts';
import type {
  CopyPiece,
  FileIdentity,
  FileRun,
  StorageDriver,
  StorageSupport,
} from '../storage.ts';
import { type FaultOperation, type FaultRule, Faults, type FiredFault } from './rules.ts';

/** A backend driver whose operations fail by rules, and count. Without a rule it is the driver that it wraps. */
export interface FaultyDriver extends BackendDriver {
  /** Operations so far, failed ones too, by kind; those that never occurred are absent. */
  readonly counts: Readonly<Partial<Record<FaultOperation, number>>>;
  /** The operations that rules made fail, in order. */
  readonly fired: readonly FiredFault[];
  /** Adds a rule; it counts from now on. When several are due, the oldest decides. */
  inject(rule: FaultRule): void;
  /** Takes all rules away. */
  clear(): void;
}

/**
 * Wraps a driver so that chosen operations fail. To try every failure of a piece of work, run it with
 * `{ nth: 1 }`, `{ nth: 2 }`, ... until nothing has fired.
 */
export function faulty(driver: BackendDriver, rules: readonly FaultRule[] = []): FaultyDriver {
  const faults = new Faults();
  for (const rule of rules) faults.inject(rule);
  const wrap = (file: StorageDriver): StorageDriver => new FaultyFile(file, faults);
  return {
    name: driver.name,
    counts: faults.counts,
    fired: faults.fired,
    inject: (rule) => faults.inject(rule),
    clear: () => faults.clear(),
    open: (path, mode) =>
      faults.run('open', path, '', async () => wrap(await driver.open(path, mode))),
    create: (path, options) =>
      faults.run('create', path, '', async () => wrap(await driver.create(path, options))),
    remove: (path) => faults.run('remove', path, '', () => driver.remove(path)),
    rename: (from, to) => faults.run('rename', from, '', () => driver.rename(from, to)),
    flushDirectory: (path, barrier) =>
      faults.run('flushDirectory', path, barrier, () => driver.flushDirectory(path, barrier)),
    facts: (path) => faults.run('facts', path, '', () => driver.facts(path)),
    list: (directory) => faults.run('list', directory, '', () => driver.list(directory)),
    realPath: (path) => faults.run('realPath', path, '', () => driver.realPath(path)),
    sharesBlocks: (from, to) => driver.sharesBlocks(from, to),
    lock: (path, request) => faults.run('lock', path, '', () => driver.lock(path, request)),
  };
}

class FaultyFile implements StorageDriver {
  readonly #file: StorageDriver;
  readonly #faults: Faults;

  constructor(file: StorageDriver, faults: Faults) {
    this.#file = file;
    this.#faults = faults;
  }

  get label(): string {
    return this.#file.label;
  }
  get writable(): boolean {
    return this.#file.writable;
  }
  get supports(): StorageSupport {
    return this.#file.supports;
  }
  get identity(): FileIdentity {
    return this.#file.identity;
  }
  get descriptor(): null {
    return null;
  }

  length(): Promise<ByteLength> {
    return this.#run('length', '', () => this.#file.length());
  }

  read(offset: HostOffset, target: Uint8Array): Promise<number> {
    return this.#transfer('read', '', target.length, (length) =>
      this.#file.read(offset, target.subarray(0, length)),
    );
  }

  runAt(offset: HostOffset): Promise<FileRun> {
    return this.#run('runAt', '', () => this.#file.runAt(offset));
  }

  write(offset: HostOffset, source: Uint8Array, what: string): Promise<void> {
    return this.#transfer('write', what, source.length, (length) =>
      this.#file.write(offset, source.subarray(0, length), what),
    );
  }

  writeZeroes(range: HostRange, what: string): Promise<void> {
    return this.#transfer('writeZeroes', what, range.length, (length) =>
      this.#file.writeZeroes({ ...range, length }, what),
    );
  }

  copyFrom(pieces: readonly CopyPiece<StorageDriver>[], what: string): Promise<number> {
    // the wrapped driver knows only its own kind
    const inner = pieces.map((piece) =>
      piece.source instanceof FaultyFile ? { ...piece, source: piece.source.#file } : piece,
    );
    return this.#transfer('copyFrom', what, bytesOfPieces(pieces), (part) =>
      this.#file.copyFrom(piecesUpTo(inner, part), what),
    );
  }

  discard(range: HostRange): Promise<void> {
    return this.#transfer('discard', '', range.length, (length) =>
      this.#file.discard({ ...range, length }),
    );
  }

  setLength(length: ByteLength): Promise<void> {
    return this.#run('setLength', '', () => this.#file.setLength(length));
  }

  flush(barrier: string): Promise<void> {
    return this.#run('flush', barrier, () => this.#file.flush(barrier));
  }

  /** Closes it also when a rule makes the answer an error, as close(2) does. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#file[Symbol.asyncDispose]();
    await this.#run('close', '', async () => {});
  }

  #run<T>(operation: FaultOperation, name: string, perform: () => Promise<T>): Promise<T> {
    return this.#faults.run(operation, this.label, name, perform);
  }

  #transfer<T>(
    operation: FaultOperation,
    name: string,
    length: number,
    perform: (length: ByteLength) => Promise<T>,
  ): Promise<T> {
    return this.#faults.transfer(operation, this.label, name, length, perform);
  }
}
