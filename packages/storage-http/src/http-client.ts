import http, { type IncomingMessage, type OutgoingHttpHeaders } from 'node:http';
import https from 'node:https';
import { httpError, type Place } from './errors.ts';

/** Connections to one server at once; further requests wait. */
const MAX_SOCKETS = 6;
const MAX_REDIRECTS = 5;
const REDIRECTS: ReadonlySet<number> = new Set([301, 302, 303, 307, 308]);

/** An answer whose body was not read yet, and where it came from in the end. */
export interface Answer {
  readonly status: number;
  readonly url: URL;
  readonly response: IncomingMessage;
}

/** GET over a bounded pool of connections that are kept alive. Nothing is decoded, stored or authenticated. */
export class HttpClient {
  readonly #timeout: number;
  readonly #http: http.Agent;
  readonly #https: https.Agent;

  /** @param timeout milliseconds without a byte after which a request has failed */
  constructor(timeout: number) {
    this.#timeout = timeout;
    const pool = { keepAlive: true, maxSockets: MAX_SOCKETS, timeout };
    this.#http = new http.Agent(pool);
    this.#https = new https.Agent(pool);
  }

  /** Follows redirects, a few, and never from https to http. */
  async get(url: URL, headers: OutgoingHttpHeaders, place: Place): Promise<Answer> {
    let at = url;
    for (let hops = 0; ; hops++) {
      const response = await this.#request(at, headers, place);
      const { statusCode: status = 0, headers: told } = response;
      if (!REDIRECTS.has(status) || told.location === undefined)
        return { status, url: at, response };
      response.destroy();
      if (hops === MAX_REDIRECTS)
        throw httpError('STORAGE_NOT_FOUND', place, `more than ${MAX_REDIRECTS} redirects`);
      at = redirected(at, told.location, place);
    }
  }

  /** Again when a kept connection was closed by the server just then: nobody has seen the request. */
  async #request(url: URL, headers: OutgoingHttpHeaders, place: Place): Promise<IncomingMessage> {
    for (;;) {
      const { request, done } = this.#send(url, headers);
      try {
        return await done;
      } catch (cause) {
        const errno = (cause as NodeJS.ErrnoException).code ?? 'unknown';
        if (request.reusedSocket && errno === 'ECONNRESET') continue;
        const problem = `no answer from ${url.host}: ${(cause as Error).message}`;
        throw httpError('STORAGE_IO', place, problem, { errno }, cause);
      }
    }
  }

  #send(
    url: URL,
    headers: OutgoingHttpHeaders,
  ): { request: http.ClientRequest; done: Promise<IncomingMessage> } {
    const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
    const secure = url.protocol === 'https:';
    const request = (secure ? https : http).get(url, {
      agent: secure ? this.#https : this.#http,
      timeout: this.#timeout,
      headers: { 'accept-encoding': 'identity', 'user-agent': 'downfold', ...headers },
    });
    const silent = () =>
      Object.assign(new Error(`silent for ${this.#timeout} ms`), { code: 'ETIMEDOUT' });
    request.on('response', (response) => {
      request.on('timeout', () => response.destroy(silent()));
      resolve(response);
    });
    request.on('timeout', () => request.destroy(silent()));
    request.on('error', reject);
    // as after a `101` that nobody asked for: Node tells neither of an answer nor of an error
    request.on('close', () => reject(unanswered()));
    return { request, done: promise };
  }
}

/** Not `ECONNRESET`: asked again, the server would say the same. */
function unanswered(): Error {
  return Object.assign(new Error('the connection was given up without one'), { code: 'EPROTO' });
}

/** Where a redirect leads. @throws StorageError when it must not be followed */
export function redirected(from: URL, location: string, place: Place): URL {
  const to = URL.parse(location, from.href);
  const known = to !== null && (to.protocol === 'http:' || to.protocol === 'https:');
  if (!known) throw httpError('STORAGE_NOT_FOUND', place, 'redirects to what is no HTTP URL');
  if (from.protocol === 'https:' && to.protocol === 'http:')
    throw httpError(
      'STORAGE_ACCESS',
      place,
      `redirects from https to ${to.origin}: that is not safe`,
    );
  return to;
}
