import { type Request, RequestDecoder } from '../codec/request.ts';
import { NbdError } from '../errors.ts';
import type { Link } from '../link.ts';
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

/** How much of one client is under way at once, from the arrival of a request until its reply has left. */
export interface FlightLimits {
  readonly requests: number;
  /** Bytes of data read or written. One request is always let in. */
  readonly bytes: number;
}

/**
 * Hears of each request when its answer is there. Called once for each, on its path: to count, and no more.
 * @param command as in `COMMAND`, or whatever number the client sent
 * @param length bytes that it was about
 * @param errno what the client is told; null: it is done
 * @param milliseconds that the export took; 0: it was not asked
 */
export type Answered = (
  command: number,
  length: number,
  errno: Errno | null,
  milliseconds: number,
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
  readonly #link: Link;
  readonly #session: Session;
  readonly #limits: FlightLimits;
  readonly #owner: TransmissionOwner;
  readonly #decoder: RequestDecoder;
  /** Came in, and waits for room. */
  #held: Request | null = null;
  #requests = 0;
  #bytes = 0;
  /** Calls of the export that have not settled. */
  #calls = 0;
  #state: 'open' | 'shutting-down' | 'ending' = 'open';
  #settled: (() => void) | undefined;

  constructor(link: Link, session: Session, limits: FlightLimits, owner: TransmissionOwner) {
    this.#link = link;
    this.#session = session;
    this.#limits = limits;
    this.#owner = owner;
    this.#decoder = new RequestDecoder(session.style === 'extended');
  }

  /** Takes what has come in, as far as the limits allow. @throws NbdError when it is no NBD */
  pump(): void {
    for (;;) {
      if (this.#state === 'ending') {
        this.#link.pause();
        break;
      }
      this.#held ??= this.#decoder.next(this.#link.queue);
      if (this.#held === null) {
        this.#link.resume();
        break;
      }
      const cost = bytesOf(this.#held);
      if (!this.#hasRoom(cost)) {
        this.#link.pause();
        return;
      }
      const request = this.#held;
      this.#held = null;
      this.#begin(request, cost);
    }
    this.#endWhenIdle();
  }

  /** Answers what is under way, refuses what else comes in, and closes the connection once nothing is left to answer. */
  shutDown(): void {
    if (this.#state === 'open') this.#state = 'shutting-down';
    this.pump();
  }

  /** The client sends no more: what it sent is answered, as far as it still listens. */
  ended(): void {
    this.#state = 'ending';
    this.#endWhenIdle();
  }

  /** Resolves once no call of the export is under way. */
  async settled(): Promise<void> {
    if (this.#calls === 0) return;
    await new Promise<void>((resolve) => {
      this.#settled = resolve;
    });
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
    this.#requests += 1;
    this.#bytes += cost;
    const left = () => {
      this.#requests -= 1;
      this.#bytes -= cost;
      this.#owner.onRoom();
    };
    if (this.#state === 'shutting-down') {
      const { style } = this.#session;
      const pieces = answerError(style, request.tag, 'ESHUTDOWN', 'the server is going down');
      this.#link.send(pieces, left);
      return;
    }
    this.#calls += 1;
    void this.#answer(request).then((pieces) => {
      this.#calls -= 1;
      this.#link.send(pieces, left);
      if (this.#calls === 0) this.#settled?.();
    });
  }

  #endWhenIdle(): void {
    if (this.#state !== 'open' && this.#requests === 0) this.#link.end();
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
    if (command === COMMAND.flush) await of.flush();
    else if (length === 0) return answerDone(style, request);
    else if (command === COMMAND.read) return await this.#read(request);
    else if (contexts !== null) return await this.#blockStatus(request, length, contexts);
    else if (command === COMMAND.trim) await of.trim(offset, length, { fua });
    else if (command === COMMAND.cache) await of.cache(offset, length);
    else if (command === COMMAND.writeZeroes)
      await of.writeZeroes(offset, length, {
        fua,
        mayTrim: (flags & COMMAND_FLAG.noHole) === 0,
        fast: (flags & COMMAND_FLAG.fastZero) !== 0,
      });
    else if (request.payload !== null) await of.write(offset, request.payload, { fua });
    return answerDone(style, request);
  }

  async #read(request: Request): Promise<Uint8Array[]> {
    const data = Buffer.allocUnsafeSlow(request.length);
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
    const statuses: ContextStatus[] = [];
    for (const [id, name] of contexts) {
      const extents = await of.blockStatus(name, request.offset, length, limit);
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
