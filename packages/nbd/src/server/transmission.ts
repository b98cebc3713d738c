import { type Request, RequestDecoder } from '../codec/request.ts';
import { errnoError, NbdError } from '../errors.ts';
import type { Wire } from '../link.ts';
import { COMMAND, COMMAND_FLAG, type Errno, MAX_PAYLOAD } from '../protocol.ts';
import {
  answerDone,
  answerError,
  answerRead,
  answerStatus,
  type ContextStatus,
} from './answers.ts';
import { toldTo } from './errno.ts';
import type { Session } from './haggling.ts';
import { refusal } from './refusal.ts';
import { statusQuery } from './status-query.ts';

/** Most extents an export is asked for at once: a reply of 0.5 to 1 MiB a context. */
const STATUS_EXTENTS = 65_536;

/** Why calls of an export end early. */
const GONE = errnoError('ESHUTDOWN', 'the client is gone');

/** How much of one client is under way at once, from the arrival of a request until its reply has left. */
export interface FlightLimits {
  readonly requests: number;
  /** Bytes of data read or written. One request is always let in. */
  readonly bytes: number;
}

/**
 * Hears of each request when its answer is there. Called once for each, on its path: to count, and no more. Of reads that a thread answered by
 * itself it hears later, when they are asked for, of many at once.
 * @param command as in `COMMAND`, or whatever number the client sent
 * @param length bytes that it was about
 * @param errno what the client is told; null: it is done
 * @param milliseconds that the export took; 0: it was not asked
 * @param count requests, of which the other figures are the mean. Absent: one
 */
export type Answered = (
  command: number,
  length: number,
  errno: Errno | null,
  milliseconds: number,
  count?: number,
) => void;

/** Whom a transmission phase belongs to. */
export interface TransmissionOwner {
  /** A reply has left: `pump` may go on. */
  onRoom(): void;
  /** A request is done with, but for the sending of its reply. */
  answered: Answered;
  /** Hears of failures of the export. */
  report(error: unknown): void;
}

/** The transmission phase of one connection: takes requests, calls the export, answers. */
export class Transmission {
  #link: Wire;
  readonly #session: Session;
  readonly #limits: FlightLimits;
  readonly #owner: TransmissionOwner;
  readonly #decoder: RequestDecoder;
  /** Came in, and wait for room: no more than one before the client has sent its last. */
  readonly #held: Request[] = [];
  #requests = 0;
  /** Those of them that are no reads. */
  #others = 0;
  #bytes = 0;
  /** Calls of the export that have not settled. */
  #calls = 0;
  /** `ending`: nothing more is taken from what comes in. */
  #state: 'open' | 'ending' = 'open';
  /** What has not begun is refused: the server goes down. */
  #refuses = false;
  #settled: (() => void) | undefined;
  /** The client took its leave: what it asked for before is done, whether or not it waits for that. */
  #hasLeft = false;
  /** Aborted when nobody hears answers any more. */
  readonly #unheard = new AbortController();
  /** Aborted when changes are not wanted any more. */
  readonly #unwanted = new AbortController();
  /** Is called when nothing is under way; nothing more begins before. */
  #still: ((isOpen: boolean) => void) | null = null;
  /** Reads that it began. */
  reads = 0;

  constructor(link: Wire, session: Session, limits: FlightLimits, owner: TransmissionOwner) {
    this.#link = link;
    this.#session = session;
    this.#limits = limits;
    this.#owner = owner;
    this.#decoder = new RequestDecoder(session.style === 'extended');
  }

  /** Takes what has come in, as far as the limits allow. @throws NbdError when it is no NBD */
  pump(): void {
    for (;;) {
      if (this.#still !== null && this.#held.length === 0) {
        this.#link.pause();
        break;
      }
      const request = this.#next();
      if (request === null) {
        if (this.#state === 'open') this.#link.resume();
        else this.#link.pause();
        break;
      }
      const cost = bytesOf(request);
      if (!this.#hasRoom(cost)) {
        this.#link.pause();
        return;
      }
      this.#held.shift();
      this.#begin(request, cost);
    }
    this.#endWhenIdle();
    this.#tellStill();
    this.#tellSettled();
  }

  /** Whether nothing but reads is under way or has begun to come in: a change may take long. */
  get isReading(): boolean {
    const [held] = this.#held;
    if (held !== undefined && held.command !== COMMAND.read) return false;
    return this.#others === 0 && !this.#decoder.isInside;
  }

  /**
   * Takes no more requests until none is under way, and calls `then`: with false when the connection is to end. Then it goes on. To be called while
   * `isReading`: until then all requests of the client wait.
   */
  whenStill(then: (isOpen: boolean) => void): void {
    this.#still = then;
    this.pump();
  }

  /** Goes on over another wire, within a call of `whenStill`; what came in over the other one is the new one's. */
  moveTo(wire: Wire): void {
    this.#link = wire;
  }

  /** Answers what is under way, refuses what else comes in, and closes the connection once nothing is left to answer. */
  shutDown(): void {
    // what was asked for by who took its leave is done
    if (this.#state === 'open') this.#refuses = true;
    this.pump();
  }

  /**
   * The client sends no more: what it sent is done and answered, as far as it still listens. Calls that would go on for long end; changes do only
   * when it did not say that it would leave. @throws NbdError when what it sent last is no NBD
   */
  ended(): void {
    this.#unheard.abort(GONE);
    if (this.#state === 'open') this.#takeLast();
    if (!this.#hasLeft) this.#unwanted.abort(GONE);
    this.pump();
  }

  /** The connection is cut off: nothing that it asked for is wanted, and nothing more that came in is looked at. */
  abandon(): void {
    this.#state = 'ending';
    this.#held.length = 0;
    this.#unheard.abort(GONE);
    this.#unwanted.abort(GONE);
    this.#tellSettled();
  }

  /** Resolves once no call of the export is under way, nor to come. To be asked for after the end. */
  async settled(): Promise<void> {
    await new Promise<void>((resolve) => {
      this.#settled = resolve;
      this.#tellSettled();
    });
  }

  #tellSettled(): void {
    if (this.#calls === 0 && this.#held.length === 0) this.#settled?.();
  }

  /** The next request that came in whole; it stays until it begins. */
  #next(): Request | null {
    if (this.#held.length === 0 && this.#state === 'open') this.#hold();
    return this.#held[0] ?? null;
  }

  /** Takes a request out of what came in. False: there is none that is whole. */
  #hold(): boolean {
    const request = this.#decoder.next(this.#link.queue);
    if (request === null) return false;
    this.#held.push(request);
    this.#hasLeft = request.command === COMMAND.disconnect;
    return true;
  }

  /** Takes all that came in, up to the client's leave: whether it took it is known only then. */
  #takeLast(): void {
    let isMore = true;
    while (isMore && !this.#hasLeft) isMore = this.#hold();
    this.#state = 'ending';
  }

  #hasRoom(cost: number): boolean {
    if (this.#requests === 0) return true;
    return this.#requests < this.#limits.requests && this.#bytes + cost <= this.#limits.bytes;
  }

  #begin(request: Request, cost: number): void {
    if (request.command === COMMAND.disconnect) {
      this.#state = 'ending';
      return;
    }
    const isRead = request.command === COMMAND.read;
    if (isRead) this.reads += 1;
    else this.#others += 1;
    this.#requests += 1;
    this.#bytes += cost;
    const left = () => {
      this.#requests -= 1;
      if (!isRead) this.#others -= 1;
      this.#bytes -= cost;
      this.#owner.onRoom();
    };
    if (this.#refuses) {
      const { style } = this.#session;
      const pieces = answerError(style, request.tag, 'ESHUTDOWN', 'the server is going down');
      this.#link.send(pieces, left);
      return;
    }
    this.#calls += 1;
    void this.#answer(request).then((pieces) => {
      this.#calls -= 1;
      this.#link.send(pieces, left);
      this.#tellSettled();
    });
  }

  /** Whether more requests are to come that will be done. */
  get #isOpen(): boolean {
    return this.#state === 'open' && !this.#refuses;
  }

  #tellStill(): void {
    const still = this.#still;
    if (still === null || (this.#isOpen && this.#requests > 0)) return;
    this.#still = null;
    still(this.#isOpen);
    this.pump();
  }

  #endWhenIdle(): void {
    if (!this.#isOpen && this.#requests === 0) this.#link.end();
  }

  /** Never rejects: a failure is an answer. */
  async #answer(request: Request): Promise<Uint8Array[]> {
    const { style } = this.#session;
    const { command, tag } = request;
    let { length } = request;
    const begun = performance.now();
    try {
      const query = command === COMMAND.blockStatus ? statusQuery(request, this.#session) : null;
      length = query?.length ?? length;
      const refused = query?.refused ?? refusal(request, length, this.#session);
      if (refused !== null) {
        this.#owner.answered(command, length, refused.errno, 0);
        return answerError(style, tag, refused.errno, refused.reason);
      }
      const pieces = await this.#serve(request, length, query?.contexts ?? null);
      this.#owner.answered(command, length, null, performance.now() - begun);
      return pieces;
    } catch (error) {
      const { errno, message } = toldTo(error);
      if (!(error instanceof NbdError && error.code === 'NBD_ERRNO')) this.#owner.report(error);
      this.#owner.answered(command, length, errno, performance.now() - begun);
      return answerError(style, tag, errno, message);
    }
  }

  /** Does what was not refused. */
  async #serve(
    request: Request,
    length: number,
    contexts: ReadonlyMap<number, string> | null,
  ): Promise<Uint8Array[]> {
    const { style, export: of } = this.#session;
    const { command, flags, offset } = request;
    const fua = (flags & COMMAND_FLAG.fua) !== 0;
    const { signal } = this.#unwanted;
    if (command === COMMAND.flush) await of.flush();
    else if (length === 0) return answerDone(style, request);
    else if (command === COMMAND.read) return await this.#read(request);
    else if (contexts !== null) return await this.#blockStatus(request, length, contexts);
    else if (command === COMMAND.trim) await of.trim(offset, length, { fua, signal });
    else if (command === COMMAND.cache)
      await of.cache(offset, length, { signal: this.#unheard.signal });
    else if (command === COMMAND.writeZeroes)
      await of.writeZeroes(offset, length, {
        fua,
        signal,
        mayTrim: (flags & COMMAND_FLAG.noHole) === 0,
        fast: (flags & COMMAND_FLAG.fastZero) !== 0,
      });
    else if (request.payload !== null) await of.write(offset, request.payload, { fua });
    return answerDone(style, request);
  }

  async #read(request: Request): Promise<Uint8Array[]> {
    const { direct } = this.#session.export;
    const data = Buffer.allocUnsafeSlow(request.length);
    // who reads on is to find the next bytes by itself, as soon as may be
    direct?.learn(request.offset, request.length);
    const holes = await this.#session.export.read(request.offset, data);
    return answerRead(this.#session.style, request, data, holes);
  }

  async #blockStatus(
    request: Request,
    length: number,
    contexts: ReadonlyMap<number, string>,
  ): Promise<Buffer[]> {
    const { style, export: of } = this.#session;
    // contexts are chosen only after chunks were
    if (style === 'simple') throw new RangeError('block status without chunks');
    const limit = (request.flags & COMMAND_FLAG.reqOne) !== 0 ? 1 : STATUS_EXTENTS;
    const { signal } = this.#unheard;
    const statuses: ContextStatus[] = [];
    for (const [id, name] of contexts) {
      const extents = await of.blockStatus(name, request.offset, length, limit, { signal });
      statuses.push({ id, extents });
    }
    return answerStatus(style, request, length, of.size, statuses);
  }
}

/** Bytes of memory a request takes while it is under way. */
function bytesOf({ command, length, payload }: Request): number {
  if (payload !== null) return payload.length;
  // a read above the limit is refused, and takes nothing
  return command === COMMAND.read && length <= MAX_PAYLOAD ? length : 0;
}
