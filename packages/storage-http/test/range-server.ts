import { createHash } from 'node:crypto';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';

/** What a test makes of a request before the server would answer it; true: it has been answered. */
type Meddling = (request: IncomingMessage, response: ServerResponse, nth: number) => boolean;

/** Files by path over HTTP, with ranges and entity tags, as RFC 9110 has them; and a way to misbehave. */
export interface RangeServer extends AsyncDisposable {
  readonly origin: string;
  readonly files: Map<string, Uint8Array>;
  /** `range` headers of all requests, in order. */
  readonly ranges: string[];
  /** Connections that were made. */
  readonly connections: () => number;
  meddle: Meddling;
  validator: 'etag' | 'last-modified' | 'weak';
}

const RANGE = /^bytes=(\d+)-(\d+)$/;
const AN_HOUR_MS = 3_600_000;

export async function rangeServer(): Promise<RangeServer> {
  let [connections, requests] = [0, 0];
  const http = createServer((request, response) => {
    requests += 1;
    server.ranges.push(request.headers.range ?? '');
    if (!server.meddle(request, response, requests)) answer(server, request, response);
  });
  http.on('connection', () => {
    connections += 1;
  });
  await new Promise<void>((resolve) => http.listen(0, '127.0.0.1', resolve));
  const address = http.address();
  if (address === null || typeof address === 'string') throw new Error('no port');
  const server: RangeServer = {
    origin: `http://127.0.0.1:${address.port}`,
    files: new Map(),
    ranges: [],
    connections: () => connections,
    meddle: () => false,
    validator: 'etag',
    async [Symbol.asyncDispose]() {
      http.closeAllConnections();
      await new Promise((resolve) => http.close(resolve));
    },
  };
  return server;
}

const etags = new WeakMap<Uint8Array, string>();

/** The entity tag of these bytes, which do not change. */
export function etagOf(bytes: Uint8Array): string {
  const known = etags.get(bytes);
  if (known !== undefined) return known;
  const etag = `"${createHash('sha256').update(bytes).digest('hex').slice(0, 16)}"`;
  etags.set(bytes, etag);
  return etag;
}

function answer(server: RangeServer, request: IncomingMessage, response: ServerResponse): void {
  const bytes = server.files.get(request.url ?? '');
  if (bytes === undefined) return void response.writeHead(404).end();
  const etag = etagOf(bytes);
  const condition = request.headers['if-match'];
  if (condition !== undefined && condition !== etag) return void response.writeHead(412).end();
  if (server.validator === 'etag') response.setHeader('etag', etag);
  else if (server.validator === 'weak') response.setHeader('etag', `W/${etag}`);
  else
    response.setHeader(
      'last-modified',
      new Date(Math.floor(Date.now() / AN_HOUR_MS - 1) * AN_HOUR_MS).toUTCString(),
    );
  const [, first, last] = RANGE.exec(request.headers.range ?? '') ?? [];
  if (first === undefined || last === undefined) return void response.writeHead(200).end(bytes);
  if (Number(first) >= bytes.length) {
    response.setHeader('content-range', `bytes */${bytes.length}`);
    return void response.writeHead(416).end();
  }
  const part = bytes.subarray(Number(first), Number(last) + 1);
  const end = Number(first) + part.length - 1;
  response.setHeader('content-range', `bytes ${first}-${end}/${bytes.length}`);
  response.writeHead(206, { 'content-length': part.length }).end(part);
}
