import { chmodSync, lstatSync, unlinkSync } from 'node:fs';
import { BlockList, connect, isIP, type Server } from 'node:net';
import { isMainThread } from 'node:worker_threads';
import { NbdError } from '../errors.ts';

/**
 * Where a server listens: a Unix socket, or TCP, where port 0 is any free one. `fd`: a socket that listens already, handed over by a
 * supervisor; which Unix socket that is nobody can tell.
 */
export type Endpoint =
  | { readonly path: string }
  | { readonly host: string; readonly port: number }
  | { readonly fd: number };

const loopback = new BlockList();
loopback.addSubnet('127.0.0.0', 8, 'ipv4');
loopback.addAddress('::1', 'ipv6');

/** Whether what is sent to a host, an address or `localhost`, stays on this machine. */
export function isLoopback(host: string): boolean {
  const family = isIP(host);
  return (
    host === 'localhost' || (family > 0 && loopback.check(host, family === 6 ? 'ipv6' : 'ipv4'))
  );
}

/** @throws NbdError `NBD_INSECURE` when plain bytes would leave this machine */
export function assertSecure(at: Endpoint, tls: boolean): void {
  // where a socket that was handed over listens is seen once it is taken
  if ('path' in at || 'fd' in at || tls) return;
  if (!isLoopback(at.host))
    throw new NbdError(
      'NBD_INSECURE',
      `without TLS only loopback addresses are served, and ${at.host} is none`,
      { host: at.host },
    );
}

/**
 * Starts listening. A Unix socket is for its owner alone (mode 0600); one that a dead server left is replaced.
 * @throws NbdError `NBD_LISTEN`
 */
export async function listen(server: Server, at: Endpoint): Promise<void> {
  if ('path' in at) await removeStale(at.path);
  const name = nameOf(at);
  await new Promise<void>((resolve, reject) => {
    const failed = (cause: Error) =>
      reject(
        new NbdError('NBD_LISTEN', `cannot listen at ${name}: ${cause.message}`, { name }, cause),
      );
    server.once('error', failed);
    const started = () => {
      server.off('error', failed);
      resolve();
    };
    if ('path' in at) listenPrivately(server, at.path, started);
    else if ('fd' in at) server.listen({ fd: at.fd }, started);
    else server.listen(at.port, at.host, started);
  });
}

function nameOf(at: Endpoint): string {
  if ('path' in at) return at.path;
  return 'fd' in at ? `descriptor ${at.fd}` : `${at.host}:${at.port}`;
}

/** Where a server that listens at `at` does so: with the port that was free, the address of a TCP socket that was handed over. */
export function endpointOf(server: Server, at: Endpoint): Endpoint {
  const address = server.address();
  if (address === null || typeof address === 'string') return at;
  return { host: 'host' in at ? at.host : address.address, port: address.port };
}

/** Binding happens within the call: with the umask, the socket is never open to others. */
function listenPrivately(server: Server, path: string, started: () => void): void {
  // worker threads cannot set it; there, the mode follows after
  const before = isMainThread ? process.umask(0o177) : null;
  try {
    server.listen(path, () => {
      chmodSync(path, 0o600);
      started();
    });
  } finally {
    if (before !== null) process.umask(before);
  }
}

/** Removes a socket of ours that nobody listens at. Anything else stays, and makes listening fail. */
async function removeStale(path: string): Promise<void> {
  const facts = lstatSync(path, { throwIfNoEntry: false });
  if (!facts?.isSocket() || facts.uid !== process.getuid?.()) return;
  const code = await new Promise<string>((resolve) => {
    const probe = connect(path, () => {
      probe.destroy();
      resolve('');
    });
    probe.once('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? ''));
  });
  if (code === 'ECONNREFUSED') unlinkSync(path);
}
