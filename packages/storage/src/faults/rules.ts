import { type ByteLength, byteLength } from '@downfold/units';
import { StorageError, type StorageErrorCode } from '../errors.ts';

/** The operations of a backend driver and of its files; `close` is the disposal of a file. */
export type FaultOperation =
  | 'open'
  | 'create'
  | 'remove'
  | 'rename'
  | 'flushDirectory'
  | 'facts'
  | 'list'
  | 'realPath'
  | 'lock'
  | 'length'
  | 'read'
  | 'runAt'
  | 'write'
  | 'writeZeroes'
  | 'copyFrom'
  | 'discard'
  | 'setLength'
  | 'flush'
  | 'close';

/** When which operation fails, and how. What is left out matches everything. */
export interface FaultRule {
  readonly operation?: FaultOperation;
  /** `what` of a write, a zeroing or a copy, or the barrier of a flush. A text is compared whole. Other operations have the name ''. */
  readonly name?: string | RegExp;
  /** Path that the file was opened by; the old one of a rename. */
  readonly file?: string | RegExp;
  /** The first matching operation that fails, from 1. Default 1. */
  readonly nth?: number;
  /** How many matching operations fail from there on; `Infinity`: all. Default 1. */
  readonly times?: number;
  /** Default `STORAGE_IO`. */
  readonly code?: StorageErrorCode;
  /**
   * What is done before it fails. `half`: half of the bytes, where the operation has a range, else nothing. `all`: everything;
   * only the answer is lost. Default `nothing`.
   */
  readonly done?: 'nothing' | 'half' | 'all';
}

/** An operation that a rule made fail. */
export interface FiredFault {
  readonly operation: FaultOperation;
  readonly file: string;
  /** As `FaultRule.name`. */
  readonly name: string;
}

/** Rules at work: counts operations and lets those fail whose turn it is. */
export class Faults {
  readonly counts: Partial<Record<FaultOperation, number>> = {};
  readonly fired: FiredFault[] = [];
  #rules: { readonly rule: FaultRule; matched: number }[] = [];

  inject(rule: FaultRule): void {
    this.#rules.push({ rule, matched: 0 });
  }

  clear(): void {
    this.#rules = [];
  }

  /** An operation without a range. */
  async run<T>(
    operation: FaultOperation,
    file: string,
    name: string,
    perform: () => Promise<T>,
  ): Promise<T> {
    const rule = this.#due(operation, file, name);
    if (rule === null) return await perform();
    if (rule.done === 'all') await letGo(await perform());
    throw this.#fail(rule, { operation, file, name });
  }

  /** An operation on `length` bytes, which `perform` does for the first so many of them. */
  async transfer<T>(
    operation: FaultOperation,
    file: string,
    name: string,
    length: number,
    perform: (length: ByteLength) => Promise<T>,
  ): Promise<T> {
    const rule = this.#due(operation, file, name);
    if (rule === null) return await perform(byteLength(length));
    const done = { nothing: 0, half: Math.floor(length / 2), all: length }[rule.done ?? 'nothing'];
    if (done > 0) await perform(byteLength(done));
    throw this.#fail(rule, { operation, file, name });
  }

  /** Counts the operation for every rule; the first rule whose turn it is. */
  #due(operation: FaultOperation, file: string, name: string): FaultRule | null {
    this.counts[operation] = (this.counts[operation] ?? 0) + 1;
    let due: FaultRule | null = null;
    for (const entry of this.#rules) {
      const { rule } = entry;
      if (rule.operation !== undefined && rule.operation !== operation) continue;
      if (!matches(rule.name, name) || !matches(rule.file, file)) continue;
      entry.matched += 1;
      const first = rule.nth ?? 1;
      if (entry.matched >= first && entry.matched < first + (rule.times ?? 1)) due ??= rule;
    }
    return due;
  }

  #fail(rule: FaultRule, fault: FiredFault): StorageError {
    this.fired.push(fault);
    const { operation, file, name } = fault;
    const which = name === '' ? operation : `${operation} of '${name}'`;
    return new StorageError(rule.code ?? 'STORAGE_IO', `${file}: injected fault in ${which}`, {
      file,
      operation,
      name,
    });
  }
}

/** What was opened or locked, and whose answer is lost, nobody else can close. */
async function letGo(made: unknown): Promise<void> {
  if (typeof made === 'object' && made !== null && Symbol.asyncDispose in made)
    await (made as AsyncDisposable)[Symbol.asyncDispose]();
}

function matches(pattern: string | RegExp | undefined, text: string): boolean {
  if (pattern === undefined) return true;
  return typeof pattern === 'string' ? pattern === text : pattern.test(text);
}
