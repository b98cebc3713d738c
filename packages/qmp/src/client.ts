import net from 'node:net';
import type { Duplex } from 'node:stream';
import { QmpError, type QmpErrorClass, QmpProtocolError } from './errors.ts';
import { EventQueue, type QmpEvent } from './event-queue.ts';
import { isObject, type JsonObject, plain } from './json.ts';
import { JsonReader, type ReaderLimits } from './reader.ts';
import type { QmpVersion } from './version.ts';
import { toJson } from './writer.ts';

/** How to connect. */
export interface ClientOptions {
  /** Of what the server sends. Default: texts of 16 MiB, strings of 1 MiB, depth 64. */
  readonly limits?: ReaderLimits;
  /** Events that an iterator holds for a reader that does not come. Default 10,000. */
  readonly events?: number;
  /** Ends connecting and negotiating. */
  readonly signal?: AbortSignal;
}

/** What a server says first. */
export interface QmpGreeting {
  readonly version: QmpVersion;
  readonly capabilities: readonly string[];
}

const MIB = 1024 * 1024;
const CLASSES: ReadonlySet<string> = new Set<QmpErrorClass>([
  'GenericError',
  'CommandNotFound',
  'DeviceNotActive',
  'DeviceNotFound',
  'KVMMissingCap',
]);

/** Connects to a Unix socket, and negotiates. @throws QmpProtocolError */
export async function connectQmp(path: string, options: ClientOptions = {}): Promise<QmpClient> {
  options.signal?.throwIfAborted();
  return await QmpClient.over(net.connect(path), options);
}

/** QMP's client side. */
export class QmpClient implements AsyncDisposable {
  readonly #stream: Duplex;
  readonly #reader: JsonReader;
  readonly #events: number;
  readonly #queues = new Set<EventQueue>();
  /** Commands without an answer; `null`: given up. */
  readonly #pending = new Map<number, PromiseWithResolvers<unknown> | null>();
  readonly #greeted = Promise.withResolvers<QmpGreeting>();
  readonly #over = Promise.withResolvers<void>();
  #greeting: QmpGreeting | null = null;
  #failure: QmpProtocolError | null = null;
  #last = 0;

  private constructor(stream: Duplex, { limits = {}, events = 10_000 }: ClientOptions) {
    this.#stream = stream;
    this.#reader = new JsonReader({ text: 16 * MIB, string: MIB, depth: 64, ...limits });
    this.#events = events;
    // who waits for the greeting is told; nobody waits after it
    this.#greeted.promise.catch(() => undefined);
    stream.on('error', (cause) =>
      this.#fail(closed(`the connection broke: ${cause.message}`, cause)),
    );
    stream.on('close', () => {
      this.#fail(closed('the server closed the connection'));
      this.#over.resolve();
    });
    stream.on('end', () => this.#fail(closed('the server closed the connection')));
    stream.on('data', (chunk: Uint8Array) => this.#take(chunk));
  }

  /** Speaks QMP over `stream`, which is the client's from now on. @throws QmpProtocolError */
  static async over(stream: Duplex, options: ClientOptions = {}): Promise<QmpClient> {
    const client = new QmpClient(stream, options);
    const { signal } = options;
    const abort = (): void => client.#fail(closed('connecting was given up', signal?.reason));
    signal?.addEventListener('abort', abort);
    try {
      await client.#greeted.promise;
      await client.execute('qmp_capabilities');
      return client;
    } catch (error) {
      await client[Symbol.asyncDispose]();
      signal?.throwIfAborted();
      throw error;
    } finally {
      signal?.removeEventListener('abort', abort);
    }
  }

  /** What the server said first. */
  get greeting(): QmpGreeting {
    if (this.#greeting === null) throw closed('the server has not greeted');
    return this.#greeting;
  }

  /**
   * Runs a command. Integers beyond 2^53-1 come back as `bigint`.
   * @param options `signal`: gives up waiting; the command itself goes on
   * @throws QmpError what the server answered; QmpProtocolError when there is no answer
   */
  async execute(
    name: string,
    args: object = {},
    options: { readonly signal?: AbortSignal } = {},
  ): Promise<unknown> {
    const { signal } = options;
    signal?.throwIfAborted();
    if (this.#failure !== null) throw this.#failure;
    this.#last += 1;
    const id = this.#last;
    const answer = Promise.withResolvers<unknown>();
    const line = toJson({ execute: name, arguments: args, id });
    this.#pending.set(id, answer);
    const abort = (): void => {
      if (this.#pending.has(id)) this.#pending.set(id, null);
      answer.reject(signal?.reason);
    };
    signal?.addEventListener('abort', abort, { once: true });
    this.#stream.write(`${line}\n`);
    try {
      return await answer.promise;
    } finally {
      signal?.removeEventListener('abort', abort);
    }
  }

  /**
   * Events from this call on, in the order in which the server sent them. Ends when the client is closed; throws when the
   * connection breaks, or more events wait than the client may hold.
   */
  events(): AsyncIterableIterator<QmpEvent> & AsyncDisposable {
    const queue = new EventQueue(this.#events, () => this.#queues.delete(queue));
    if (this.#failure === null) this.#queues.add(queue);
    else queue.end(this.#failure);
    return queue;
  }

  /** Closes the connection. What has no answer yet is rejected with `QMP_CLOSED`. */
  async [Symbol.asyncDispose](): Promise<void> {
    for (const queue of this.#queues) queue.end(null);
    this.#fail(closed('the client was closed'));
    await this.#over.promise;
  }

  #take(chunk: Uint8Array): void {
    for (const { value, error } of this.#reader.feed(chunk)) {
      if (this.#failure !== null) return;
      if (error !== undefined) this.#fail(error);
      else if (isObject(value)) this.#dispatch(value);
      else this.#fail(unexpected(toJson(value)));
    }
  }

  #dispatch(message: JsonObject): void {
    if (this.#greeting === null) this.#greet(message);
    else if ('event' in message)
      for (const queue of this.#queues) queue.push(plain(message) as QmpEvent);
    else this.#settle(message);
  }

  #greet(message: JsonObject): void {
    if (!isObject(message['QMP'])) {
      this.#fail(refusal(message) ?? unexpected(toJson(message)));
      return;
    }
    this.#greeting = plain(message['QMP']) as QmpGreeting;
    this.#greeted.resolve(this.#greeting);
  }

  #settle(message: JsonObject): void {
    const { id } = message;
    const answer = typeof id === 'number' ? this.#pending.get(id) : undefined;
    if (typeof id !== 'number' || answer === undefined) {
      this.#fail(unexpected(toJson(message)));
      return;
    }
    this.#pending.delete(id);
    const error = errorOf(message);
    if (error !== null) answer?.reject(error);
    else answer?.resolve(plain(message['return'] ?? null));
  }

  /** Ends all that waits; the first failure is told. */
  #fail(failure: QmpProtocolError): void {
    if (this.#failure !== null) return;
    this.#failure = failure;
    this.#greeted.reject(failure);
    for (const answer of this.#pending.values()) answer?.reject(failure);
    this.#pending.clear();
    for (const queue of this.#queues) queue.end(failure);
    this.#stream.destroy();
  }
}

function errorOf({ error }: JsonObject): QmpError | null {
  if (!isObject(error)) return null;
  const name = String(error['class']);
  // a class that is not of this QMP says no more than the general one
  const known = CLASSES.has(name) ? (name as QmpErrorClass) : 'GenericError';
  return new QmpError(known, String(error['desc']));
}

/** A server that has no place for another client may say so instead of greeting it. */
function refusal(message: JsonObject): QmpProtocolError | null {
  const error = errorOf(message);
  return error === null ? null : closed(`the server refused: ${error.message}`, error);
}

function closed(why: string, cause?: unknown): QmpProtocolError {
  return new QmpProtocolError('QMP_CLOSED', `QMP: ${why}`, {}, cause);
}

const SHOWN = 200;

function unexpected(json: string): QmpProtocolError {
  const shown = json.length > SHOWN ? `${json.slice(0, SHOWN)}…` : json;
  return new QmpProtocolError('QMP_UNEXPECTED', `the server sent what is no QMP: ${shown}`);
}
