import { connect, type Socket } from 'node:net';
import { NbdError } from '../errors.ts';
import type { Style } from '../protocol.ts';
import { type NbdClient, openClient } from './client.ts';
import { Haggle, type ListedExport } from './haggle.ts';
import { type ClientTls, startTls } from './tls.ts';
import { Wire } from './wire.ts';

/** Where a server is. */
export type ServerAddress =
  | { readonly path: string }
  | { readonly host: string; readonly port: number };

/** How to reach a server. */
export interface ReachOptions {
  readonly server: ServerAddress;
  /** Given, the connection is made with TLS or not at all. */
  readonly tls?: ClientTls | undefined;
  /** Milliseconds for everything up to the transmission phase. Default 10,000. */
  readonly handshakeTimeout?: number | undefined;
  /** Gives up connecting; rejects with its reason. */
  readonly signal?: AbortSignal | undefined;
}

/** What to connect to. */
export interface ConnectOptions extends ReachOptions {
  /** Name of the export; empty for the default one, which not all servers have. */
  readonly name?: string | undefined;
  /** Metadata contexts that `blockStatus` shall tell; those that the server has not are left out. Default none. */
  readonly contexts?: readonly string[] | undefined;
  /** The best style to ask for. Default `extended`: the best that both know. */
  readonly style?: Style | undefined;
}

/**
 * Connects to an export.
 * @throws NbdError `NBD_CONNECT`, `NBD_REFUSED`, `NBD_TLS`, `NBD_PROTOCOL`, `NBD_LIMIT`, `NBD_UNSUPPORTED`
 */
export async function connectNbd(options: ConnectOptions): Promise<NbdClient> {
  const { name = '', contexts = [], style = 'extended' } = options;
  return await reach(options, async (wire, haggle): Promise<NbdClient> => {
    const info = await haggle.choose(name, style, contexts);
    return openClient(wire, info);
  });
}

/** The exports of a server, as far as it tells. @throws NbdError as `connectNbd` */
export async function listExports(options: ReachOptions): Promise<ListedExport[]> {
  return await reach(options, async (wire, haggle) => {
    const exports = await haggle.list();
    haggle.abort();
    wire.link.end();
    return exports;
  });
}

/** Connects, does the handshake up to TLS, and what `then` does after it; within the time, or not at all. */
async function reach<T>(
  { server, tls, handshakeTimeout = 10_000, signal }: ReachOptions,
  then: (wire: Wire, haggle: Haggle) => Promise<T>,
): Promise<T> {
  signal?.throwIfAborted();
  const socket = 'path' in server ? connect(server.path) : connect(server.port, server.host);
  const given = Promise.withResolvers<never>();
  const giveUp = (reason: unknown) => {
    given.reject(reason);
    socket.destroy();
  };
  const timer = setTimeout(() => {
    giveUp(new NbdError('NBD_CONNECT', `no handshake within ${handshakeTimeout} ms`));
  }, handshakeTimeout);
  const aborted = () => giveUp(signal?.reason);
  signal?.addEventListener('abort', aborted);
  const work = async (): Promise<T> => {
    const wire = new Wire(await connected(socket));
    const haggle = new Haggle(wire);
    await haggle.greet();
    if (tls !== undefined) {
      await haggle.askForTls();
      const plain = wire.link.release();
      wire.link.upgrade(await startTls(plain, tls, 'host' in server ? server.host : null));
    }
    return await then(wire, haggle);
  };
  try {
    return await Promise.race([work(), given.promise]);
  } catch (error) {
    socket.destroy();
    throw error;
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener('abort', aborted);
  }
}

function connected(socket: Socket): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const failed = (cause?: Error) => {
      const why = cause?.message ?? 'the socket was closed';
      reject(new NbdError('NBD_CONNECT', `cannot connect: ${why}`, {}, cause));
    };
    const closed = () => failed();
    socket.once('error', failed);
    socket.once('close', closed);
    socket.once('connect', () => {
      socket.off('error', failed);
      socket.off('close', closed);
      resolve(socket);
    });
  });
}
