import type { ReplySink } from '../codec/reply-decoder.ts';
import { errnoError, type NbdError, protocolError } from '../errors.ts';
import { COMMAND, errnoName, type StatusExtent } from '../protocol.ts';
import { Coverage } from './coverage.ts';

/** Statuses that one request got, by the name of the context. */
export type Statuses = ReadonlyMap<string, readonly StatusExtent[]>;

/** A request that was sent. */
export interface Sent {
  readonly command: number;
  readonly offset: number;
  readonly length: number;
  /** Where the data of a read goes. */
  readonly target: Uint8Array | null;
  /** Whether the status of one extent was asked for. */
  readonly one: boolean;
}

interface Pending extends Sent {
  readonly coverage: Coverage;
  readonly statuses: Map<string, readonly StatusExtent[]>;
  readonly resolve: (statuses: Statuses) => void;
  readonly reject: (error: unknown) => void;
  error: NbdError | null;
}

/** Requests in flight, and what a server may say to them. A server that says anything else is no server: `NBD_PROTOCOL`. */
export class Replies implements ReplySink {
  readonly #chunks: boolean;
  readonly #contexts: ReadonlyMap<number, string>;
  readonly #onSettled: (error: NbdError | null) => void;
  readonly #pending = new Map<number, Pending>();

  /** @param onSettled called after each request, with the server's error */
  constructor(
    chunks: boolean,
    contexts: ReadonlyMap<number, string>,
    onSettled: (error: NbdError | null) => void,
  ) {
    this.#chunks = chunks;
    this.#contexts = contexts;
    this.#onSettled = onSettled;
  }

  get inFlight(): number {
    return this.#pending.size;
  }

  /** Waits for the reply to `cookie`. */
  expect(cookie: number, sent: Sent): Promise<Statuses> {
    return new Promise((resolve, reject) => {
      this.#pending.set(cookie, {
        ...sent,
        coverage: new Coverage(sent.offset, sent.length),
        statuses: new Map(),
        resolve,
        reject,
        error: null,
      });
    });
  }

  /** Nothing will be answered any more. */
  fail(error: unknown): void {
    const all = [...this.#pending.values()];
    this.#pending.clear();
    for (const { reject } of all) reject(error);
  }

  chunk(cookie: number, offset: number | null): void {
    const request = this.#get(cookie);
    if (offset !== null && offset !== request.offset)
      throw protocolError('a reply repeats another offset than that of its request');
  }

  simple(cookie: number, error: number): Uint8Array | null {
    const request = this.#get(cookie);
    const reads = request.command === COMMAND.read;
    if (this.#chunks && reads) throw protocolError('a read is answered without a chunk');
    if (error !== 0) {
      this.#note(request, error, '');
      return null;
    }
    if (request.command === COMMAND.blockStatus)
      throw protocolError('a block status is answered without a chunk');
    if (!reads || request.target === null || request.length === 0) return null;
    request.coverage.add(request.offset, request.length);
    return request.target;
  }

  data(cookie: number, offset: number, length: number): Uint8Array {
    return this.#content(cookie, offset, length);
  }

  hole(cookie: number, offset: number, length: number): void {
    this.#content(cookie, offset, length).fill(0);
  }

  status(cookie: number, context: number, extents: readonly StatusExtent[]): void {
    const request = this.#get(cookie);
    const name = this.#contexts.get(context);
    if (request.command !== COMMAND.blockStatus || name === undefined)
      throw protocolError('the server sends a status that was not asked for');
    if (request.statuses.has(name)) throw protocolError(`two statuses of ${name}`);
    const before = extents.slice(0, -1).reduce((sum, { length }) => sum + length, 0);
    const last = extents.at(-1)?.length ?? 0;
    const fits = request.one
      ? extents.length === 1 && last <= request.length
      : before < request.length;
    if (!fits || extents.some(({ length }) => length === 0) || !Number.isSafeInteger(before + last))
      throw protocolError(`the extents of ${name} do not fit what was asked about`);
    request.statuses.set(name, extents);
  }

  failure(cookie: number, error: number, message: string, offset: number | null): void {
    const request = this.#get(cookie);
    if (error === 0) throw protocolError('an error chunk has no error');
    const { offset: start, length } = request;
    if (offset !== null && !(offset >= start && offset < start + Math.max(length, 1)))
      throw protocolError('an error is said to be outside of its request');
    this.#note(request, error, message);
  }

  done(cookie: number): void {
    const request = this.#get(cookie);
    const { command, coverage, statuses, error } = request;
    if (error === null && command === COMMAND.read && !coverage.complete)
      throw protocolError('a read is done before all of it has come');
    if (error === null && command === COMMAND.blockStatus && statuses.size < this.#contexts.size)
      throw protocolError('a block status is done before all of it has come');
    this.#pending.delete(cookie);
    if (error === null) request.resolve(statuses);
    else request.reject(error);
    this.#onSettled(error);
  }

  #get(cookie: number): Pending {
    const request = this.#pending.get(cookie);
    if (request === undefined) throw protocolError('a reply is to no request in flight');
    return request;
  }

  #content(cookie: number, offset: number, length: number): Uint8Array {
    const request = this.#get(cookie);
    if (request.target === null) throw protocolError('the server sends data that nobody reads');
    if (!request.coverage.add(offset, length))
      throw protocolError('the server sends data twice, or from outside of what is read');
    const start = offset - request.offset;
    return request.target.subarray(start, start + length);
  }

  /** The first error counts. */
  #note(request: Pending, error: number, message: string): void {
    const errno = errnoName(error);
    const command = Object.entries(COMMAND).find(([, value]) => value === request.command)?.[0];
    const text = message === '' ? errno : `${errno}, ${message}`;
    request.error ??= errnoError(
      errno,
      `${command} of ${request.length} bytes at ${request.offset} failed: ${text}`,
    );
  }
}
