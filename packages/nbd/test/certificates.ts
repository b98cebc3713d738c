import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { runSync } from './support.ts';

/** Certificates of one authority, in a folder with the names that GnuTLS clients and servers look for. */
export interface Authority {
  readonly folder: string;
  readonly ca: string;
  readonly server: { readonly cert: string; readonly key: string };
  readonly client: { readonly cert: string; readonly key: string };
}

const SAN = 'subjectAltName=DNS:localhost,IP:127.0.0.1';

/** Makes an authority, a server's certificate for localhost, and a client's. */
export function makeAuthority(folder: string): Authority {
  mkdirSync(folder);
  const at = (name: string) => join(folder, name);
  const text = (name: string) => readFileSync(at(name), 'utf8');
  const fresh = (name: string) => [
    '-newkey',
    'ec',
    '-pkeyopt',
    'ec_paramgen_curve:P-256',
    '-nodes',
    '-keyout',
    at(`${name}-key.pem`),
  ];
  runSync(
    'openssl',
    'req',
    '-x509',
    ...fresh('ca'),
    '-out',
    at('ca-cert.pem'),
    '-subj',
    '/CN=authority',
    '-days',
    '2',
  );
  writeFileSync(at('server.ext'), `${SAN}\nextendedKeyUsage=serverAuth\n`);
  writeFileSync(at('client.ext'), 'extendedKeyUsage=clientAuth\n');
  const signed = (name: string) => {
    const [request, cert] = [at(`${name}.csr`), at(`${name}-cert.pem`)];
    runSync('openssl', 'req', ...fresh(name), '-out', request, '-subj', `/CN=${name}`);
    const by = ['-CA', at('ca-cert.pem'), '-CAkey', at('ca-key.pem'), '-CAcreateserial'];
    runSync(
      'openssl',
      'x509',
      '-req',
      '-in',
      request,
      ...by,
      '-out',
      cert,
      '-days',
      '2',
      '-extfile',
      at(`${name}.ext`),
    );
    return { cert: text(`${name}-cert.pem`), key: text(`${name}-key.pem`) };
  };
  return { folder, server: signed('server'), client: signed('client'), ca: text('ca-cert.pem') };
}
