import type { Socket } from 'node:net';
import { encodeGreeting, OptionDecoder } from '../codec/handshake.ts';
import { NbdError, protocolError } from '../errors.ts';
import { Link } from '../link.ts';
import { HANDSHAKE_FLAG } from '../protocol.ts';
import { type Answer, Haggling, type HagglingHost, type Session } from './haggling.ts';
import { acceptTls, type ServerTls } from './tls.ts';
import { type Answered, type FlightLimits, Transmission } from './transmission.ts';

/** What a connection asks of its server. */
export interface ConnectionHost extends HagglingHost {
  readonly tls: ServerTls | null;
  readonly flight: FlightLimits;
  /** Milliseconds from the first byte until the transmission phase. */
  readonly handshakeTimeout: number;
  /** Hears why a client was dropped, and what failed. */
  report(error: unknown): void;
  /** What hears of each answer of an export; null: nobody. */
  readonly answered: ((name: string) => Answered) | null;
}

const NOBODY: Answered = () => {};

const KNOWN_FLAGS = HANDSHAKE_FLAG.fixedNewstyle | HANDSHAKE_FLAG.noZeroes;

/** One client, from its first byte to its last. */
export class Connection {
  readonly #host: ConnectionHost;
  readonly #link: Link;
  readonly #decoder = new OptionDecoder();
  readonly #timer: NodeJS.Timeout;
  readonly #closed = Promise.withResolvers<void>();
  /** Resolves once the socket is closed and the export has nothing to do for this client. */
  readonly finished: Promise<void>;
  #phase: 'flags' | 'options' | 'tls' | 'transmission' | 'closed' = 'flags';
  #dropped = false;
  #haggling: Haggling | null = null;
  #transmission: Transmission | null = null;
  #session: Session | null = null;

  constructor(socket: Socket, host: ConnectionHost) {
    this.#host = host;
    this.#link = new Link(socket, {
      onBytes: () => this.#pump(),
      onDrain: () => this.#pump(),
      onEnd: () => this.#transmission?.ended(),
      onClose: () => this.#onClose(),
    });
    this.#timer = setTimeout(() => {
      this.#drop(new NbdError('NBD_CONNECT', 'a client took too long for its handshake'));
    }, host.handshakeTimeout);
    this.finished = this.#closed.promise.then(() => this.#transmission?.settled());
    this.#link.send([encodeGreeting(KNOWN_FLAGS)]);
  }

  /** Name of the export it uses; `null` before it has chosen one. */
  get exportName(): string | null {
    return this.#session?.name ?? null;
  }

  /** Lets what is under way finish, and closes. A client within its handshake is told with its next option. */
  shutDown(): void {
    if (this.#phase === 'flags') this.#link.destroy();
    if (this.#phase === 'transmission') this.#guard(() => this.#transmission?.shutDown());
  }

  /** Closes at once. */
  destroy(): void {
    this.#link.destroy();
  }

  #pump(): void {
    this.#guard(() => {
      if (this.#phase === 'flags') this.#takeFlags();
      if (this.#phase === 'options') this.#takeOptions();
      if (this.#phase === 'transmission') this.#transmission?.pump();
    });
  }

  /** Whoever breaks the protocol is dropped; nobody else notices. */
  #guard(step: () => void): void {
    try {
      step();
    } catch (error) {
      this.#drop(error);
    }
  }

  /** Nothing of what the client has sent behind its mistake is looked at. */
  #drop(error: unknown): void {
    if (this.#dropped) return;
    this.#dropped = true;
    this.#phase = 'closed';
    this.#link.destroy();
    this.#host.report(error);
  }

  #takeFlags(): void {
    const bytes = this.#link.queue.take(4);
    if (bytes === null) return;
    const flags = bytes.readUInt32BE(0);
    if ((flags & ~KNOWN_FLAGS) !== 0) throw protocolError('a client sets unknown flags');
    this.#haggling = new Haggling(this.#host, {
      fixed: (flags & HANDSHAKE_FLAG.fixedNewstyle) !== 0,
      noZeroes: (flags & HANDSHAKE_FLAG.noZeroes) !== 0,
    });
    this.#phase = 'options';
  }

  #takeOptions(): void {
    while (this.#phase === 'options' && this.#haggling !== null) {
      // who does not read the answers gets no more of them
      if (this.#link.congested) {
        this.#link.pause();
        return;
      }
      const request = this.#decoder.next(this.#link.queue);
      if (request === null) {
        this.#link.resume();
        return;
      }
      this.#follow(this.#haggling.answer(request));
    }
  }

  #follow({ replies, next }: Answer): void {
    if (next === 'drop') throw protocolError('a client was hung up on during the handshake');
    if (next === 'tls') this.#startTls(replies);
    else if (replies.length > 0) this.#link.send(replies);
    if (next === 'end') {
      this.#phase = 'closed';
      this.#link.end();
    } else if (typeof next === 'object') this.#startTransmission(next);
  }

  #startTransmission(session: Session): void {
    clearTimeout(this.#timer);
    this.#session = session;
    this.#transmission = new Transmission(this.#link, session, this.#host.flight, {
      onRoom: () => this.#pump(),
      answered: this.#host.answered?.(session.name) ?? NOBODY,
      report: (error) => this.#host.report(error),
    });
    this.#phase = 'transmission';
  }

  /** Bytes that are here before TLS is up were sent in the clear by somebody, perhaps not by the client. */
  #startTls(replies: readonly Buffer[]): void {
    const { tls } = this.#host;
    if (this.#link.queue.length > 0 || tls === null)
      throw protocolError('a client sends plain bytes after it asked for TLS');
    this.#phase = 'tls';
    const socket = this.#link.release();
    for (const reply of replies) socket.write(reply);
    acceptTls(socket, tls).then(
      (secure) => {
        if (this.#phase !== 'tls') {
          secure.destroy();
          return;
        }
        this.#haggling?.secured();
        this.#phase = 'options';
        this.#link.upgrade(secure);
      },
      (error: unknown) => this.#drop(error),
    );
  }

  #onClose(): void {
    clearTimeout(this.#timer);
    this.#phase = 'closed';
    this.#transmission?.ended();
    this.#closed.resolve();
  }
}
