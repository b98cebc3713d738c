import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { Duplex } from 'node:stream';
import { printable } from '@downfold/chain';
import { isLoopback } from '@downfold/nbd';
import { listenQmp } from '@downfold/qmp';
import { ServerError } from '../errors.ts';
import type { Log } from '../log.ts';
import type { SocketAddress } from '../qmp/schema/exports.ts';
import { problemsOf } from './health.ts';
import type { Observed } from './observed.ts';

/** Numbers that keep whoever reads metrics from harming guests. Milliseconds, bytes. */
const MOST_CONNECTIONS = 16;
const IDLE = 10_000;
const LIMITS = { headersTimeout: 5000, requestTimeout: 5000, maxHeaderSize: 8192 } as const;

const TEXT = 'text/plain; charset=utf-8';

/** A listener for `/metrics` and `/healthz`, until it is disposed of. */
export interface MetricsListener extends AsyncDisposable {
  /** Where it listens, for people. */
  readonly address: string;
}

/**
 * Serves metrics and health over HTTP. Nobody is asked who he is: hence only on a Unix socket (0600, in a directory 0700), a loopback address, or
 * a socket of a supervisor that is either.
 * @throws ServerError `SERVER_USAGE`; QmpProtocolError for what is wrong with the path of a socket
 */
export async function serveMetrics(
  at: SocketAddress,
  observed: Observed,
  log: Log,
): Promise<MetricsListener> {
  if (at.type === 'inet') assertLocal(at.host);
  const { registryOf } = await import('./registry.ts');
  const registry = registryOf(observed);
  const server = createServer(LIMITS, (request, response) => {
    answer(request, response, registry, observed).catch((cause: unknown) => {
      log.error(`metrics: ${cause instanceof Error ? cause.message : String(cause)}`);
      response.destroy();
    });
  });
  server.maxConnections = MOST_CONNECTIONS;
  // also of one that says nothing
  server.timeout = IDLE;
  const onError = (error: Error): void => log.warn(`metrics: a client is lost: ${error.message}`);
  if (at.type === 'unix') return await onPath(server, at.path, onError);
  const listener = await onSocket(server, at);
  server.on('error', onError);
  return listener;
}

async function answer(
  { method, url }: IncomingMessage,
  response: ServerResponse,
  registry: { metrics(): Promise<string>; readonly contentType: string },
  observed: Observed,
): Promise<void> {
  const say = (status: number, text: string, type: string = TEXT): void => {
    response.writeHead(status, { 'content-type': type, 'cache-control': 'no-store' });
    response.end(method === 'HEAD' ? undefined : text);
  };
  const [path] = (url ?? '').split('?');
  if (method !== 'GET' && method !== 'HEAD') {
    response.setHeader('allow', 'GET, HEAD');
    say(405, 'GET or HEAD\n');
  } else if (path === '/metrics') say(200, await registry.metrics(), registry.contentType);
  else if (path === '/healthz') {
    const problems = problemsOf(observed).map(printable);
    say(problems.length === 0 ? 200 : 503, `${problems.join('\n') || 'ok'}\n`);
  } else say(404, 'here are /metrics and /healthz\n');
}

/** The socket is made as QMP's are. */
async function onPath(
  server: Server,
  path: string,
  onError: (error: Error) => void,
): Promise<MetricsListener> {
  const open = new Set<Duplex>();
  const serve = (stream: Duplex): Promise<null> => {
    if (open.size >= MOST_CONNECTIONS) stream.destroy();
    else server.emit('connection', stream);
    open.add(stream);
    return new Promise((resolve) =>
      stream.once('close', () => {
        open.delete(stream);
        resolve(null);
      }),
    );
  };
  const listener = await listenQmp({ serve }, { path, onError });
  return {
    address: `unix:${listener.path}`,
    [Symbol.asyncDispose]: async () => {
      await listener[Symbol.asyncDispose]();
      for (const stream of open) stream.destroy();
    },
  };
}

async function onSocket(
  server: Server,
  at: Exclude<SocketAddress, { readonly type: 'unix' }>,
): Promise<MetricsListener> {
  await new Promise<void>((resolve, reject) => {
    server.once('error', (cause) =>
      reject(
        new ServerError('SERVER_USAGE', `--metrics: cannot listen: ${cause.message}`, {}, cause),
      ),
    );
    if (at.type === 'fd') server.listen({ fd: Number(at.str) }, resolve);
    else server.listen(Number(at.port), at.host, resolve);
  });
  const close = async (): Promise<void> => {
    const closed = new Promise<void>((resolve) => server.close(() => resolve()));
    server.closeAllConnections();
    await closed;
  };
  // of a Unix socket that was handed over there is no address
  const bound = server.address();
  if (bound === null || typeof bound === 'string')
    return { address: 'a Unix socket of the supervisor', [Symbol.asyncDispose]: close };
  try {
    assertLocal(bound.address);
  } catch (cause) {
    await close();
    throw cause;
  }
  const host = bound.family === 'IPv6' ? `[${bound.address}]` : bound.address;
  return { address: `http://${host}:${bound.port}/metrics`, [Symbol.asyncDispose]: close };
}

function assertLocal(host: string): void {
  if (isLoopback(host)) return;
  throw new ServerError(
    'SERVER_USAGE',
    `--metrics: ${host} is no loopback address, and whoever reaches it could read them: there is no login; say 127.0.0.1:PORT, [::1]:PORT or unix:PATH`,
    { host },
  );
}
