import { createPrivateKey } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { secretIn, secretOf } from '@downfold/host';
import type { ImageSecret } from '@downfold/image';
import type { ServerTls } from '@downfold/nbd';
import { about, bool, oneOf, optional, str, struct, type Type, union } from '@downfold/qmp';
import { ServerError } from '../errors.ts';

interface SecretOptions {
  readonly 'qom-type': 'secret';
  readonly id: string;
  readonly data?: string;
  readonly file?: string;
  readonly format?: 'raw' | 'base64';
}

interface CertificateOptions {
  readonly 'qom-type': 'tls-creds-x509';
  readonly id: string;
  readonly dir: string;
  readonly endpoint?: 'server';
  readonly 'verify-peer'?: boolean;
  readonly passwordid?: string;
}

interface KeyOptions {
  readonly 'qom-type': 'tls-creds-psk';
  readonly id: string;
  readonly dir: string;
  readonly endpoint?: 'server';
}

/** What `--object` makes. */
export type ObjectOptions = SecretOptions | CertificateOptions | KeyOptions;

const endpoint: Type<'server'> = oneOf(['server']);

export const objectOptions: Type<ObjectOptions> = union({
  name: 'ObjectOptions',
  tag: 'qom-type',
  base: { id: str },
  variants: {
    secret: struct({
      data: optional(str),
      file: optional(str),
      format: optional(oneOf(['raw', 'base64'])),
    }),
    'tls-creds-x509': struct({
      dir: about('of ca-cert.pem, server-cert.pem and server-key.pem', str),
      endpoint: optional(endpoint),
      'verify-peer': optional(bool),
      passwordid: optional(str),
    }),
    'tls-creds-psk': struct({
      dir: about('of keys.psk', str),
      endpoint: optional(endpoint),
    }),
  },
});

/** What was made with `--object` or `object-add`, by id. */
export class Objects {
  readonly #secrets: Map<string, ImageSecret> = new Map();
  readonly #tls: Map<string, ServerTls> = new Map();

  /** Secrets come before what uses them. @throws ServerError `SERVER_OBJECT` */
  add(options: ObjectOptions): void {
    const { id } = options;
    if (this.#secrets.has(id) || this.#tls.has(id))
      throw new ServerError('SERVER_OBJECT', `there is an object '${id}' already`, { id });
    if (options['qom-type'] === 'secret') this.#secrets.set(id, made(options));
    else if (options['qom-type'] === 'tls-creds-psk') this.#tls.set(id, keysOf(options));
    else this.#tls.set(id, this.#certificatesOf(options));
  }

  /** @throws ServerError `SERVER_OBJECT` */
  remove(id: string): void {
    if (this.#secrets.delete(id) || this.#tls.delete(id)) return;
    throw new ServerError('SERVER_OBJECT', `object '${id}' not found`, { id });
  }

  /** @throws ServerError `SERVER_OBJECT` */
  secret(id: string): ImageSecret {
    const found = this.#secrets.get(id);
    if (found !== undefined) return found;
    throw new ServerError('SERVER_OBJECT', `No secret with id '${id}'`, { id });
  }

  /** @throws ServerError `SERVER_OBJECT` */
  tls(id: string): ServerTls {
    const found = this.#tls.get(id);
    if (found !== undefined) return found;
    throw new ServerError('SERVER_OBJECT', `No TLS credentials with id '${id}'`, { id });
  }

  #certificatesOf(options: CertificateOptions): ServerTls {
    const { id, dir, passwordid } = options;
    const verify = options['verify-peer'] ?? true;
    const locked = readIn(dir, 'server-key.pem', id);
    return {
      cert: readIn(dir, 'server-cert.pem', id),
      key: passwordid === undefined ? locked : this.#unlocked(locked, passwordid, id),
      ...(verify ? { ca: readIn(dir, 'ca-cert.pem', id) } : {}),
    };
  }

  #unlocked(key: Buffer, passwordid: string, id: string): string {
    const passphrase = Buffer.from(this.secret(passwordid).passphrase);
    try {
      const open = createPrivateKey({ key, passphrase });
      return open.export({ type: 'pkcs8', format: 'pem' }) as string;
    } catch (cause) {
      throw unusable(id, 'its private key cannot be unlocked', cause);
    }
  }
}

function made({ id, data, file, format = 'raw' }: SecretOptions): ImageSecret {
  if ((data === undefined) === (file === undefined))
    throw new ServerError('SERVER_OBJECT', `secret '${id}': either 'data' or 'file'`, { id });
  try {
    return file === undefined ? secretOf(Buffer.from(data ?? ''), format) : secretIn(file, format);
  } catch (cause) {
    throw unusable(id, 'is no secret', cause);
  }
}

/** Lines `NAME:KEY`, the key in hexadecimal, as `psktool` writes them. */
function keysOf({ id, dir }: KeyOptions): ServerTls {
  const keys = new Map<string, Buffer>();
  const lines = readIn(dir, 'keys.psk', id).toString('utf8').split('\n');
  for (const line of lines.filter((one) => one.trim() !== '')) {
    const [, name, key] = /^([^:]+):((?:[0-9a-f]{2})+)\s*$/i.exec(line) ?? [];
    if (name === undefined || key === undefined)
      throw new ServerError('SERVER_OBJECT', `'${id}': keys.psk has a line that is no NAME:HEX`, {
        id,
      });
    keys.set(name, Buffer.from(key, 'hex'));
  }
  return { psk: (identity) => keys.get(identity) ?? null };
}

function readIn(directory: string, name: string, id: string): Buffer {
  return readAt(join(directory, name), id);
}

function readAt(path: string, id: string): Buffer {
  try {
    return readFileSync(path);
  } catch (cause) {
    throw unusable(id, `cannot read '${path}'`, cause);
  }
}

function unusable(id: string, what: string, cause: unknown): ServerError {
  const why = cause instanceof Error ? cause.message : String(cause);
  return new ServerError('SERVER_OBJECT', `'${id}': ${what}: ${why}`, { id }, cause);
}
