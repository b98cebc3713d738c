import { createServer, type Server } from 'node:net';
import { assertBlockSize } from '../block-size.ts';
import { encodeString } from '../codec/strings.ts';
import { NbdError } from '../errors.ts';
import { Connection, type ConnectionHost } from './connection.ts';
import { Threads } from './direct/threads.ts';
import type { Export } from './export.ts';
import { assertSecure, type Endpoint, endpointOf, listen } from './listen.ts';
import { assertUsable, type ServerTls } from './tls.ts';
import type { Answered } from './transmission.ts';

/** Numbers that keep one client from harming others. */
export interface ServerLimits {
  /** Connections at once, also those whose client hung up while calls of an export are under way; more are closed as they come. Default 100. */
  readonly clients?: number | undefined;
  /** Milliseconds a client has for its handshake. Default 10,000. */
  readonly handshakeTimeout?: number | undefined;
  /** Requests of one client at once; the rest wait in its socket. Default 16. */
  readonly requests?: number | undefined;
  /** Bytes of data of one client at once. Default 32 MiB. */
  readonly bytes?: number | undefined;
  /** Connections that threads of their own serve, where exports let them; the others share the event loop. Default 8; 0: none. */
  readonly threads?: number | undefined;
}

/** How a server serves. */
export interface ServerOptions {
  /** Unix sockets get mode 0600; TCP without TLS is for loopback addresses only. */
  readonly listen: Endpoint;
  /** Given, every client must use it. */
  readonly tls?: ServerTls | undefined;
  readonly exports?: Iterable<readonly [name: string, of: Export]> | undefined;
  readonly limits?: ServerLimits | undefined;
  /** Hears why a client was dropped, and what an export failed with; for logs. Must not throw. */
  readonly onError?: ((error: unknown) => void) | undefined;
  /** Called for each client with the name of its export; what it returns hears of the client's requests. Must not throw. */
  readonly onAnswer?: ((name: string) => Answered) | undefined;
}

/** A server that listens. */
export interface NbdServer extends AsyncDisposable {
  /** Where it listens; the port is the real one. */
  readonly endpoint: Endpoint;
  /** Connections at the moment. */
  readonly clients: number;
  /** Connections that use the export of a name. */
  clientsOf(name: string): number;
  /** Threads for connections: how many serve one, and how many wait for one. */
  readonly threads: { readonly serving: number; readonly idle: number };
  /** Has what `onAnswer` returned hear of the reads that threads answered so far. */
  settle(): void;
  /** Serves one more export. @throws NbdError `NBD_NAME` when the name is taken or no name, `NBD_RANGE` when its sizes make no sense */
  add(name: string, of: Export): void;
  /**
   * Serves an export no more. Resolves once its clients are gone, as in `close`, and no call of it is under way.
   * @throws NbdError `NBD_NAME` when there is none of that name
   */
  remove(name: string, options?: CloseOptions): Promise<void>;
  /**
   * Takes no new clients, lets requests under way finish, answers others with `ESHUTDOWN`, and closes. Resolves once all
   * sockets are closed and no call of an export is under way: exports can be closed then, and not before.
   */
  close(options?: CloseOptions): Promise<void>;
}

/** How long closing may take. */
export interface CloseOptions {
  /** Milliseconds until clients that do not take their answers, or asked for more than that takes, are cut off. Default 5,000. */
  readonly grace?: number | undefined;
}

/**
 * Starts a server.
 * @throws NbdError `NBD_INSECURE`, `NBD_LISTEN`, `NBD_TLS`, `NBD_NAME`, `NBD_RANGE`
 */
export async function serveNbd(options: ServerOptions): Promise<NbdServer> {
  assertSecure(options.listen, options.tls !== undefined);
  if (options.tls !== undefined) assertUsable(options.tls);
  const server = new ListeningServer(options);
  for (const [name, of] of options.exports ?? []) server.add(name, of);
  await server.start();
  return server;
}

class ListeningServer implements NbdServer {
  readonly #at: Endpoint;
  readonly #exports = new Map<string, Export>();
  readonly #connections = new Set<Connection>();
  readonly #server: Server;
  readonly #tls: boolean;
  readonly #threads: Threads;
  readonly #report: (error: unknown) => void;
  #closing = false;
  #closed: Promise<void> | null = null;

  constructor(options: ServerOptions) {
    this.#at = options.listen;
    this.#tls = options.tls !== undefined;
    this.#threads = new Threads(options.limits?.threads ?? 8, (error) => options.onError?.(error));
    const host = this.#host(options);
    this.#report = host.report;
    const most = options.limits?.clients ?? 100;
    const turnedAway = (): void =>
      host.report(
        new NbdError('NBD_LIMIT', `a client was turned away: there are ${most} already`, { most }),
      );
    // who ends its side still hears the answers
    this.#server = createServer({ allowHalfOpen: true }, (socket) => {
      // sockets are not all: who hung up counts for as long as there is work under way for it
      if (this.#connections.size >= most) {
        socket.destroy();
        turnedAway();
        return;
      }
      const connection = new Connection(socket, host);
      this.#connections.add(connection);
      void connection.finished.then(() => this.#connections.delete(connection));
    });
    this.#server.maxConnections = most;
    this.#server.on('drop', turnedAway);
  }

  get endpoint(): Endpoint {
    return endpointOf(this.#server, this.#at);
  }

  get clients(): number {
    return this.#connections.size;
  }

  clientsOf(name: string): number {
    return [...this.#connections].filter(({ exportName }) => exportName === name).length;
  }

  get threads(): NbdServer['threads'] {
    const serving = [...this.#connections].filter(({ hasThread }) => hasThread).length;
    return { serving, idle: this.#threads.idle };
  }

  settle(): void {
    for (const connection of this.#connections) connection.settle();
  }

  async start(): Promise<void> {
    await listen(this.#server, this.#at);
    // a connection that the kernel has no room for is lost; those that are there, and the next ones, are not
    this.#server.on('error', this.#report);
    try {
      assertSecure(this.endpoint, this.#tls);
    } catch (cause) {
      this.#server.close();
      throw cause;
    }
  }

  add(name: string, of: Export): void {
    encodeString(name, 'the name of an export');
    encodeString(of.description, 'the description of an export');
    if (this.#exports.has(name))
      throw new NbdError('NBD_NAME', `there is an export '${name}' already`, { name });
    if (!Number.isSafeInteger(of.size) || of.size < 0)
      throw new NbdError('NBD_RANGE', `export '${name}' cannot have ${of.size} bytes`, { name });
    assertBlockSize(of.blockSize, `export '${name}'`);
    this.#exports.set(name, of);
    if (of.direct !== null && !this.#tls) this.#threads.prepare();
  }

  async remove(name: string, options: CloseOptions = {}): Promise<void> {
    if (!this.#exports.delete(name))
      throw new NbdError('NBD_NAME', `there is no export '${name}'`, { name });
    await this.#end(
      [...this.#connections].filter((c) => c.exportName === name),
      options,
    );
  }

  close(options: CloseOptions = {}): Promise<void> {
    this.#closed ??= this.#close(options);
    return this.#closed;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #close(options: CloseOptions): Promise<void> {
    this.#closing = true;
    const stopped = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    await this.#end([...this.#connections], options);
    await stopped;
    await this.#threads.close();
  }

  async #end(connections: readonly Connection[], { grace = 5000 }: CloseOptions): Promise<void> {
    for (const connection of connections) connection.shutDown();
    const timer = setTimeout(() => {
      for (const connection of connections) connection.destroy();
    }, grace);
    await Promise.all(connections.map((connection) => connection.finished));
    clearTimeout(timer);
  }

  #host({ tls, limits, onError, onAnswer }: ServerOptions): ConnectionHost {
    const isClosing = () => this.#closing;
    return {
      exports: this.#exports,
      tls: tls ?? null,
      tlsRequired: tls !== undefined,
      get closing() {
        return isClosing();
      },
      flight: { requests: limits?.requests ?? 16, bytes: limits?.bytes ?? 32 * 1024 * 1024 },
      handshakeTimeout: limits?.handshakeTimeout ?? 10_000,
      threads: this.#threads,
      report: (error) => onError?.(error),
      answered: onAnswer ?? null,
    };
  }
}
