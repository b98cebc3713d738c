import { isIP, type Socket } from 'node:net';
import tls from 'node:tls';
import { NbdError } from '../errors.ts';
import { PSK_CIPHERS } from '../psk-ciphers.ts';

/** TLS by certificates. Keys and certificates are PEM. */
export interface ClientCertificates {
  /** Authority that signed the server's certificate. */
  readonly ca: string | Buffer;
  /** Name that the server's certificate must carry. Default: the host that is connected to; Unix sockets have none. */
  readonly serverName?: string | undefined;
  /** For servers that want one. */
  readonly cert?: string | Buffer | undefined;
  readonly key?: string | Buffer | undefined;
}

/** TLS by a key that both sides know. */
export interface ClientKey {
  readonly psk: { readonly identity: string; readonly key: Uint8Array };
}

/** How a client does TLS. Given, it never goes on without. */
export type ClientTls = ClientCertificates | ClientKey;

function optionsOf(how: ClientTls, host: string | null): tls.ConnectionOptions {
  if ('psk' in how) {
    const { identity, key } = how.psk;
    return {
      minVersion: 'TLSv1.2',
      ciphers: PSK_CIPHERS,
      pskCallback: () => ({ identity, psk: key }),
      // there is no certificate: who knows the key is the server
      checkServerIdentity: () => undefined,
    };
  }
  const name = how.serverName ?? host;
  if (name === null)
    throw new NbdError('NBD_TLS', 'over a Unix socket, TLS needs the `serverName` to expect');
  const { ca, cert, key } = how;
  const own = cert === undefined || key === undefined ? {} : { cert, key };
  return {
    minVersion: 'TLSv1.2',
    ca,
    ...own,
    // addresses are checked, but not announced (RFC 6066)
    servername: isIP(name) > 0 ? '' : name,
    checkServerIdentity: (_, peer) => tls.checkServerIdentity(name, peer),
  };
}

/**
 * The client's side of the TLS handshake over a connected socket.
 * @param host that was connected to; `null` for a Unix socket
 * @throws NbdError `NBD_TLS`
 */
export async function startTls(
  socket: Socket,
  how: ClientTls,
  host: string | null,
): Promise<tls.TLSSocket> {
  const options = optionsOf(how, host);
  return await new Promise((resolve, reject) => {
    const failed = (error?: Error) => {
      const why = error?.message ?? 'the server hung up';
      reject(new NbdError('NBD_TLS', `the TLS handshake failed: ${why}`, {}, error));
    };
    const secure = tls.connect({ ...options, socket, rejectUnauthorized: true }, () => {
      secure.off('error', failed);
      resolve(secure);
    });
    secure.once('error', failed);
    secure.once('close', () => failed());
  });
}
