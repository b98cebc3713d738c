import type { Duplex } from 'node:stream';
import { builtins } from './builtins.ts';
import type { Command, Commands, Events } from './command.ts';
import { QmpProtocolError } from './errors.ts';
import { introspect } from './introspect.ts';
import type { ReaderLimits } from './reader.ts';
import { Session } from './session.ts';
import type { Infer } from './types.ts';
import type { QmpVersion } from './version.ts';

/** What a server allows its clients. */
export interface ServerLimits extends ReaderLimits {
  /** Sessions at once. Default 16. */
  readonly sessions?: number;
  /** Bytes written that a client has not read, before an event more ends its session. Default 4 MiB. */
  readonly unread?: number;
}

/** What a server is made of. */
export interface ServerOptions<E extends Events> {
  readonly version: QmpVersion;
  /** The server's own, beside `qmp_capabilities`, `query-version`, `query-commands` and `query-qmp-schema`. */
  readonly commands: Commands;
  readonly events: E;
  readonly limits?: ServerLimits;
  /** Called with what a command threw that is no error of Downfold: a fault in it. Its client is told that there was one. */
  readonly onFault: (fault: unknown, command: string) => void;
  /** Milliseconds since 1970; default `Date.now`, with the fraction that `performance` has. */
  readonly now?: () => number;
}

const MIB = 1024 * 1024;
/** Milliseconds that closing waits for commands to end and for answers to be read. */
const GRACE = 1000;

type DataOf<E> = E extends { readonly data: infer T } ? Infer<NonNullable<T>> : never;

/**
 * QMP's server side: commands and events over any number of streams. Commands of all sessions are run one at a time, in the
 * order in which they came, as QEMU does.
 */
export class QmpServer<E extends Events = Events> implements AsyncDisposable {
  /** All commands, the server's own first. */
  readonly commands: Commands;
  readonly events: E;
  readonly #options: ServerOptions<E>;
  readonly #sessions = new Set<Session>();
  readonly #closing = new AbortController();
  /** Ends with the command that was asked for last. */
  #turn: Promise<unknown> = Promise.resolve();

  constructor(options: ServerOptions<E>) {
    this.#options = options;
    this.events = options.events;
    const own = builtins({
      version: options.version,
      names: () => Object.keys(this.commands),
      schema: () => introspect(this),
    });
    const taken = Object.keys(own).find((name) => Object.hasOwn(options.commands, name));
    if (taken !== undefined) throw new TypeError(`${taken} is a command of every server`);
    this.commands = { ...own, ...options.commands };
  }

  /** How many sessions there are. One that has lost its client counts until its command has ended. */
  get sessions(): number {
    return this.#sessions.size;
  }

  /**
   * Speaks QMP over `stream`, which is this server's from now on, until the other side ends it or either side closes it.
   * @returns what broke the connection, or `null`; of a client that was not let in `QMP_TOO_MANY_SESSIONS` or `QMP_CLOSED`
   */
  async serve(stream: Duplex): Promise<Error | null> {
    const { limits = {}, version, onFault } = this.#options;
    const { sessions = 16, unread = 4 * MIB, ...readerLimits } = limits;
    if (this.#closing.signal.aborted || this.#sessions.size >= sessions)
      return this.#refuse(stream, sessions);
    const session = new Session(stream, {
      version,
      commands: this.commands,
      limits: readerLimits,
      unread,
      onFault,
      run: (command, args) => this.#run(command, args),
    });
    this.#sessions.add(session);
    try {
      return await session.run();
    } finally {
      this.#sessions.delete(session);
    }
  }

  /** Tells every session that has negotiated. What is emitted before a command's answer goes out before it. */
  emit<N extends keyof E & string>(
    name: N,
    ...[data]: DataOf<E[N]> extends undefined ? [] : [data: DataOf<E[N]>]
  ): void {
    const { now = () => performance.timeOrigin + performance.now() } = this.#options;
    const micros = Math.floor(now() * 1000);
    const seconds = Math.floor(micros / 1_000_000);
    const timestamp = { seconds, microseconds: micros - seconds * 1_000_000 };
    for (const session of this.#sessions) session.tell({ timestamp, event: name, data });
  }

  /** Ends all sessions: what was answered is still sent, for a second at most. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort(new QmpProtocolError('QMP_CLOSED', 'the QMP server was closed'));
    await Promise.all([...this.#sessions].map((session) => session.close(GRACE)));
  }

  #run(command: Command, args: unknown): Promise<unknown> {
    const { signal } = this.#closing;
    const run = this.#turn.then(async () => {
      signal.throwIfAborted();
      return await command.run(args, { signal });
    });
    this.#turn = run.catch(() => undefined);
    return run;
  }

  #refuse(stream: Duplex, sessions: number): QmpProtocolError {
    const closed = this.#closing.signal.aborted;
    const error = closed
      ? new QmpProtocolError('QMP_CLOSED', 'the QMP server was closed')
      : new QmpProtocolError(
          'QMP_TOO_MANY_SESSIONS',
          `there are ${sessions} sessions already, as many as this server allows`,
          { sessions },
        );
    Session.refuse(stream, error);
    return error;
  }
}
