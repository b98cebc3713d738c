import {
  type BackendDriver,
  LockTable,
  numberOf,
  type OpenMode,
  openBackend,
  type StorageBackend,
} from '@downfold/storage';
import { httpError } from './errors.ts';
import { HttpClient } from './http-client.ts';
import { HttpDriver } from './http-driver.ts';
import { probe } from './ranges.ts';
import { modifiedOf } from './validator.ts';

const TIMEOUT_MS = 30_000;

/** How servers are asked. */
export interface HttpBackendOptions {
  /** Milliseconds without a byte after which a request fails. Default 30,000. */
  readonly timeout?: number | undefined;
}

/**
 * Files behind HTTP and HTTPS, for reading. Paths are URLs. What is open is one version of the file: when the server has another one, reads
 * reject with `STORAGE_CHANGED`.
 */
export function httpBackend(options: HttpBackendOptions = {}): StorageBackend {
  return openBackend(httpBackendDriver(options));
}

/** The driver side of `httpBackend`, for decorators. */
export function httpBackendDriver({
  timeout = TIMEOUT_MS,
}: HttpBackendOptions = {}): BackendDriver {
  const client = new HttpClient(timeout);
  const locks = new LockTable();
  const open = (path: string, mode: OpenMode): Promise<HttpDriver> => openUrl(client, path, mode);
  return {
    name: 'http',
    open,
    create: unsupported,
    remove: unsupported,
    rename: unsupported,
    list: unsupported,
    flushDirectory: unsupported,
    sharesBlocks: async () => false,
    lock: async (path, request) => {
      await using file = await open(path, 'read');
      return locks.lock(file.label, file.identity, request, { remote: true });
    },
    facts: async (path) => {
      await using file = await open(path, 'read');
      const length = await file.length();
      const modified = modifiedOf(file.version.validator);
      return { kind: 'file', identity: file.identity, length, allocated: length, modified };
    },
    realPath: async (path) => {
      await using file = await open(path, 'read');
      return file.label;
    },
  };
}

async function openUrl(client: HttpClient, path: string, mode: OpenMode): Promise<HttpDriver> {
  const url = urlOf(path);
  if (mode === 'write') return await unsupported(path);
  const version = await probe(client, url, url.href);
  // server and resource, hashed to numbers larger than those of any file of this machine
  const identity = {
    device: numberOf(`http server ${url.origin}`),
    inode: numberOf(`http resource ${url.pathname}${url.search}`),
  };
  return new HttpDriver(client, version, url.href, identity);
}

/** @throws StorageError `STORAGE_NOT_FOUND` when it is no URL of ours, or has a password, which errors would repeat */
function urlOf(path: string): URL {
  const url = URL.parse(path);
  const known = url !== null && (url.protocol === 'http:' || url.protocol === 'https:');
  if (known && url.username === '' && url.password === '') {
    url.hash = '';
    return url;
  }
  const problem = 'is no http or https URL without user name and password';
  throw httpError('STORAGE_NOT_FOUND', { file: known ? url.origin : path, offset: null }, problem);
}

async function unsupported(path: string): Promise<never> {
  const place = { file: path, offset: null };
  throw httpError('STORAGE_UNSUPPORTED', place, 'files behind HTTP can be read, and nothing else');
}
