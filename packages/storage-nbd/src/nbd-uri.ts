import { realpath } from 'node:fs/promises';
import type { ServerAddress } from '@downfold/nbd';
import { StorageError } from '@downfold/storage';

const DEFAULT_PORT = 10_809;
/** Scheme, `+unix`, authority, path, query. Source: NetworkBlockDevice/nbd, doc/uri.md. */
const URI = /^(nbds?)(\+unix)?:\/\/([^/?#]*)(?:\/([^?#]*))?(?:\?([^#]*))?$/i;
/** A name or an IPv4 address, or an IPv6 address in brackets; a port. */
const AUTHORITY = /^(?:\[([0-9a-f:.]+)\]|([^@:[\]]+))(?::(\d{1,5}))?$/i;

/** An export, and how its server is reached. */
export interface NbdLocation {
  /** One spelling of the URI: port and absolute socket path are written, links in it are resolved. */
  readonly uri: string;
  readonly server: ServerAddress;
  /** Equal for all URIs of one server, with and without TLS. */
  readonly serverKey: string;
  readonly exportName: string;
  readonly tls: boolean;
}

/** What an NBD URI names. @throws StorageError `STORAGE_NOT_FOUND` when it is none, or its socket is not there */
export async function locate(uri: string): Promise<NbdLocation> {
  const [, scheme = '', unix, authority = '', path = '', query] = URI.exec(uri) ?? refuse(uri);
  const exportName = decode(path, uri);
  const secure = scheme.toLowerCase();
  const tls = secure === 'nbds';
  const encodedName = encode(exportName);
  if (unix !== undefined) {
    const socket = await socketOf(query, authority, uri);
    return {
      uri: `${secure}+unix:///${encodedName}?socket=${encode(socket)}`,
      server: { path: socket },
      serverKey: `unix:${socket}`,
      exportName,
      tls,
    };
  }
  const [, ipv6, name, digits] = AUTHORITY.exec(authority) ?? refuse(uri);
  const host = (ipv6 ?? name ?? '').toLowerCase();
  const port = digits === undefined ? DEFAULT_PORT : Number(digits);
  if (query !== undefined || port === 0 || port > 65_535) refuse(uri);
  const serverKey = `${ipv6 === undefined ? host : `[${host}]`}:${port}`;
  return {
    uri: `${secure}://${serverKey}/${encodedName}`,
    server: { host, port },
    serverKey,
    exportName,
    tls,
  };
}

/** The socket's real path: one server has one key, through whichever links it is reached. */
async function socketOf(
  query: string | undefined,
  authority: string,
  uri: string,
): Promise<string> {
  const [key, value = '', ...more] = (query ?? '').split('=');
  if (key !== 'socket' || value === '' || value.includes('&') || more.length > 0) refuse(uri);
  if (authority !== '') refuse(uri);
  const socket = decode(value, uri);
  try {
    return await realpath(socket);
  } catch (cause) {
    throw new StorageError(
      'STORAGE_NOT_FOUND',
      `${uri}: no server listens at ${socket}`,
      { file: uri, socket },
      cause,
    );
  }
}

function encode(text: string): string {
  return text.split('/').map(encodeURIComponent).join('/');
}

function decode(text: string, uri: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return refuse(uri);
  }
}

function refuse(uri: string): never {
  throw new StorageError(
    'STORAGE_NOT_FOUND',
    `${uri}: is no NBD URI: nbd://HOST[:PORT]/EXPORT or nbd+unix:///EXPORT?socket=PATH, or nbds for TLS`,
    { file: uri },
  );
}
