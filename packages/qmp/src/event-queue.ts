import { QmpProtocolError } from './errors.ts';

/** An event as it came. */
export interface QmpEvent {
  readonly event: string;
  readonly data?: Readonly<Record<string, unknown>>;
  readonly timestamp: { readonly seconds: number; readonly microseconds: number };
}

type Result = IteratorResult<QmpEvent, undefined>;

const DONE: Result = { done: true, value: undefined };

/** Events for one reader, kept from when it asked for them until it reads them. */
export class EventQueue implements AsyncIterableIterator<QmpEvent, undefined>, AsyncDisposable {
  readonly #most: number;
  readonly #leave: () => void;
  readonly #waiting: PromiseWithResolvers<Result>[] = [];
  #events: QmpEvent[] = [];
  /** Why there will be no more; `null`: because nobody wants more. */
  #end: { readonly failure: QmpProtocolError | null } | null = null;

  /** @param leave called once there are no more events */
  constructor(most: number, leave: () => void) {
    this.#most = most;
    this.#leave = leave;
  }

  push(event: QmpEvent): void {
    const reader = this.#waiting.shift();
    if (reader !== undefined) reader.resolve({ done: false, value: event });
    else if (this.#events.length < this.#most) this.#events.push(event);
    else
      this.end(
        new QmpProtocolError(
          'QMP_SLOW_READER',
          `${this.#most} events wait to be read: those that followed are lost`,
          { events: this.#most },
        ),
      );
  }

  /** After what is held there is nothing more, or a failure. */
  end(failure: QmpProtocolError | null): void {
    if (this.#end !== null) return;
    this.#end = { failure };
    this.#leave();
    for (const reader of this.#waiting.splice(0)) {
      if (failure === null) reader.resolve(DONE);
      else reader.reject(failure);
    }
  }

  async next(): Promise<Result> {
    const event = this.#events.shift();
    if (event !== undefined) return { done: false, value: event };
    if (this.#end?.failure != null) throw this.#end.failure;
    if (this.#end !== null) return DONE;
    const reader = Promise.withResolvers<Result>();
    this.#waiting.push(reader);
    return await reader.promise;
  }

  async return(): Promise<Result> {
    this.#events = [];
    this.end(null);
    return DONE;
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.return();
  }
}
