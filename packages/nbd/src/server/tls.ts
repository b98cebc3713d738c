import type { Socket } from 'node:net';
import tls from 'node:tls';
import { NbdError } from '../errors.ts';
import { PSK_CIPHERS } from '../psk-ciphers.ts';

/** TLS by certificates. Keys and certificates are PEM. */
export interface ServerCertificates {
  readonly key: string | Buffer;
  readonly cert: string | Buffer;
  /** With it, clients must show a certificate that this authority signed. */
  readonly ca?: string | Buffer | undefined;
}

/** TLS by keys that both sides know. */
export interface ServerKeys {
  /** The key of a client by its name; `null` for a stranger. */
  readonly psk: (identity: string) => Uint8Array | null;
}

/** How a server does TLS. Whoever has it, insists on it. */
export type ServerTls = ServerCertificates | ServerKeys;

function optionsOf(how: ServerTls): tls.TlsOptions {
  if (!('psk' in how)) {
    const { key, cert, ca } = how;
    const authority = ca === undefined ? {} : { ca, requestCert: true, rejectUnauthorized: true };
    return { key, cert, minVersion: 'TLSv1.2', ...authority };
  }
  return {
    minVersion: 'TLSv1.2',
    ciphers: PSK_CIPHERS,
    pskCallback: (_socket, identity) => how.psk(identity),
  };
}

/** @throws NbdError `NBD_TLS` when keys and certificates are unusable */
export function assertUsable(how: ServerTls): void {
  try {
    tls.createSecureContext(optionsOf(how));
  } catch (cause) {
    throw new NbdError('NBD_TLS', `TLS cannot be set up: ${(cause as Error).message}`, {}, cause);
  }
}

/**
 * The server's side of the TLS handshake over an accepted socket. A `tls.Server` that never listens does it, because only that
 * checks the client's certificate.
 */
export function acceptTls(socket: Socket, how: ServerTls): Promise<tls.TLSSocket> {
  return new Promise((resolve, reject) => {
    const server = tls.createServer(optionsOf(how));
    const failed = (error?: Error) => {
      const why = error?.message ?? 'the client hung up';
      reject(new NbdError('NBD_TLS', `the TLS handshake failed: ${why}`, {}, error));
    };
    server.once('secureConnection', (secure) => {
      socket.off('close', failed);
      resolve(secure);
    });
    server.once('tlsClientError', failed);
    socket.once('close', () => failed());
    server.emit('connection', socket);
  });
}
