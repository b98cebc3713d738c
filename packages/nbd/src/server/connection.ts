import type { Socket } from 'node:net';
import type { DirectReads } from '@downfold/units';
import { encodeGreeting, OptionDecoder } from '../codec/handshake.ts';
import { NbdError, protocolError } from '../errors.ts';
import { Link } from '../link.ts';
import { COMMAND, HANDSHAKE_FLAG } from '../protocol.ts';
import type { Tally } from './direct/control.ts';
import { ThreadWire } from './direct/thread-wire.ts';
import type { Thread, Threads } from './direct/threads.ts';
import { type Answer, Haggling, type HagglingHost, type Session } from './haggling.ts';
import { acceptTls, type ServerTls } from './tls.ts';
import { type Answered, type FlightLimits, Transmission } from './transmission.ts';

/** What a connection asks of its server. */
export interface ConnectionHost extends HagglingHost {
  readonly tls: ServerTls | null;
  readonly flight: FlightLimits;
  /** Threads for connections that read much. */
  readonly threads: Threads;
  /** Milliseconds from the first byte until the transmission phase. */
  readonly handshakeTimeout: number;
  /** Hears why a client was dropped, and what failed. */
  report(error: unknown): void;
  /** What hears of each answer of an export; null: nobody. */
  readonly answered: ((name: string) => Answered) | null;
}

const NOBODY: Answered = () => {};

/** A client that reads so often gets a thread that is idle; one that only looks around, or writes, needs none. */
const READS_FOR_A_THREAD = 8;
/** And one that reads so often a new one: starting it costs about as much as these reads. */
const READS_FOR_A_NEW_THREAD = 512;

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
  /** Whether it may get a thread: it has none, and waits for none. */
  #wantsThread = false;
  /** A new thread was asked for; when there is none to be had, an idle one may still come. */
  #hasAsked = false;
  /** The wire of the thread that has the socket. */
  #wire: ThreadWire | null = null;
  #answered: Answered = NOBODY;

  constructor(socket: Socket, host: ConnectionHost) {
    this.#host = host;
    this.#link = new Link(socket, {
      onBytes: () => this.#pump(),
      onDrain: () => this.#pump(),
      onEnd: () => this.#onEnd(),
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

  /** Whether a thread serves it. */
  get hasThread(): boolean {
    return this.#wire !== null;
  }

  /** Has whoever counts requests hear of those that the thread answered by itself. */
  settle(): void {
    this.#wire?.settle(this.#tally);
  }

  /** Lets what is under way finish, and closes. A client within its handshake is told with its next option. */
  shutDown(): void {
    if (this.#phase === 'flags') this.#link.destroy();
    this.#wire?.passAll();
    if (this.#phase === 'transmission') this.#guard(() => this.#transmission?.shutDown());
  }

  /** Closes at once. What is under way for it ends as soon as the export lets it. */
  destroy(): void {
    this.#transmission?.abandon();
    // whoever has the socket lets go of it first
    if (this.#wire === null) this.#link.destroy();
    else this.#wire.destroy();
  }

  #pump(): void {
    this.#guard(() => {
      if (this.#phase === 'flags') this.#takeFlags();
      if (this.#phase === 'options') this.#takeOptions();
      if (this.#phase === 'transmission') this.#transmission?.pump();
      // not for a client that was dropped just now: asking would go on with what came behind its mistake
      if (this.#phase === 'transmission' && this.#wantsThread) this.#askForThread();
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
    this.destroy();
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
    this.#answered = this.#host.answered?.(session.name) ?? NOBODY;
    this.#transmission = new Transmission(this.#link, session, this.#host.flight, {
      onRoom: () => this.#pump(),
      answered: this.#answered,
      report: (error) => this.#host.report(error),
    });
    this.#phase = 'transmission';
    // bytes of TLS are for the thread that has the keys
    this.#wantsThread = session.export.direct !== null && this.#host.tls === null;
  }

  /** Until there is one the connection is served here. Asks only when what is under way is over soon: all else would wait for it. */
  #askForThread(): void {
    const { reads = 0, isReading = false } = this.#transmission ?? {};
    if (reads < READS_FOR_A_THREAD || !isReading) return;
    const { threads } = this.#host;
    const idle = threads.takeIdle();
    if (idle !== null) this.#moveTo(idle);
    else if (reads >= READS_FOR_A_NEW_THREAD && !this.#hasAsked) {
      this.#hasAsked = true;
      void threads.take().then((thread) => {
        if (thread === null) return;
        this.#hasAsked = false;
        // it is asked for as any other that is idle: an idle one may have come first, a change be under way, or the client be gone
        threads.giveBack(thread);
        this.#pump();
      });
    }
  }

  #moveTo(thread: Thread): void {
    this.#wantsThread = false;
    const direct = this.#session?.export.direct ?? null;
    this.#transmission?.whenStill((isOpen) => {
      if (
        !isOpen ||
        this.#phase !== 'transmission' ||
        direct === null ||
        !this.#giveTo(thread, direct)
      )
        this.#host.threads.giveBack(thread);
    });
  }

  /** Gives the socket, with what came in, to a thread. False: it cannot be given. */
  #giveTo(thread: Thread, { map }: DirectReads): boolean {
    const session = this.#session;
    const reader = map.addReader();
    const socket = reader === null ? null : this.#link.detach();
    if (session === null || reader === null || socket === null) {
      if (reader !== null) map.removeReader(reader);
      return false;
    }
    const begun = this.#link.queue.take(this.#link.queue.length) ?? new Uint8Array();
    const { style, export: of } = session;
    const { size, blockSize } = of;
    const wire = new ThreadWire(
      thread,
      { socket, begun: new Uint8Array(begun), style, size, blockSize, map: map.buffer, reader },
      {
        onBytes: () => this.#pump(),
        onEnd: () => this.#onEnd(),
        onOver: (error) => {
          this.settle();
          map.removeReader(reader);
          this.#host.threads.giveBack(thread);
          this.#wire = null;
          if (error === null) this.#link.end();
          else this.#link.destroy();
        },
      },
    );
    this.#wire = wire;
    this.#transmission?.moveTo(wire);
    return true;
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

  /** Reads that took as long as each other. */
  readonly #tally: Tally = (count, bytes, milliseconds) => {
    this.#answered(COMMAND.read, bytes / count, null, milliseconds / count, count);
  };

  #onEnd(): void {
    if (this.#transmission === null) this.#link.end();
    this.#guard(() => this.#transmission?.ended());
  }

  #onClose(): void {
    clearTimeout(this.#timer);
    // what it asked for before may still wait for room
    if (this.#transmission === null) this.#phase = 'closed';
    else this.#onEnd();
    this.#closed.resolve();
  }
}
