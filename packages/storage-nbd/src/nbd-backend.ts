import { createHash } from 'node:crypto';
import { type ClientTls, connectNbd, EXPORT_FLAG, type NbdClient } from '@downfold/nbd';
import {
  type BackendDriver,
  type FileIdentity,
  type OpenMode,
  openBackend,
  type StorageBackend,
  StorageError,
  type StorageErrorCode,
} from '@downfold/storage';
import { calling } from './errors.ts';
import { NbdDriver } from './nbd-driver.ts';
import { locate, type NbdLocation } from './nbd-uri.ts';

/** How servers are reached. */
export interface NbdBackendOptions {
  /** For `nbds` URIs, which are refused without it. `nbd` URIs go without TLS. */
  readonly tls?: ClientTls | undefined;
}

/**
 * Exports of NBD servers as files. Paths are URIs: `nbd://HOST[:PORT]/EXPORT`, `nbd+unix:///EXPORT?socket=PATH`, and `nbds` for TLS.
 * Each open file is a connection; when it is lost, the file is: nothing is sent again.
 */
export function nbdBackend(options: NbdBackendOptions = {}): StorageBackend {
  return openBackend(nbdBackendDriver(options));
}

/** The driver side of `nbdBackend`, for decorators. */
export function nbdBackendDriver(options: NbdBackendOptions = {}): BackendDriver {
  const open = (path: string, mode: OpenMode): Promise<NbdDriver> =>
    openExport(path, mode, options);
  return {
    name: 'nbd',
    open,
    create: (path) => unsupported(path, 'creates no exports'),
    remove: (path) => unsupported(path, 'removes no exports'),
    rename: (path) => unsupported(path, 'renames no exports'),
    list: (path) => unsupported(path, 'has no directories'),
    flushDirectory: (path) => unsupported(path, 'has no directories'),
    lock: (path) => unsupported(path, 'has no locks; make sure that nobody else uses the export'),
    facts: async (path) => {
      await using file = await open(path, 'read');
      const length = await file.length();
      const { identity } = file;
      return { kind: 'block-device', identity, length, allocated: length, modified: '0' };
    },
    realPath: async (path) => {
      await using file = await open(path, 'read');
      return file.label;
    },
  };
}

async function openExport(
  path: string,
  mode: OpenMode,
  { tls }: NbdBackendOptions,
): Promise<NbdDriver> {
  const location = await locate(path);
  const { uri, server, exportName } = location;
  if (location.tls && tls === undefined)
    throw refusal('STORAGE_ACCESS', uri, 'wants TLS, and there are neither certificates nor a key');
  const client = await calling(uri, 'open', null, () =>
    connectNbd({ server, name: exportName, tls: location.tls ? tls : undefined }),
  );
  try {
    assertUsable(client, mode, uri);
  } catch (cause) {
    await client.close();
    throw cause;
  }
  return new NbdDriver(client, { uri, identity: identityOf(location), writable: mode === 'write' });
}

/** @throws StorageError when the export cannot be used so that every byte is reached and every flush means something */
function assertUsable({ info }: NbdClient, mode: OpenMode, uri: string): void {
  const { size, blockSize, flags, readOnly } = info;
  if (size % blockSize.minimum !== 0)
    throw refusal(
      'STORAGE_UNSUPPORTED',
      uri,
      `its last bytes cannot be reached: it has ${size} bytes, in blocks of ${blockSize.minimum}`,
    );
  if (mode === 'read') return;
  if (readOnly) throw refusal('STORAGE_ACCESS', uri, 'the server exports it for reading only');
  if ((flags & (EXPORT_FLAG.flush | EXPORT_FLAG.fua)) === 0)
    throw refusal(
      'STORAGE_UNSUPPORTED',
      uri,
      'its server can make no write durable (no flush, no FUA)',
    );
}

/** Server and name, hashed to numbers of 128 bits: no file of this machine has such a device. */
function identityOf({ serverKey, exportName }: NbdLocation): FileIdentity {
  return {
    device: numberOf(`nbd server ${serverKey}`),
    inode: numberOf(`nbd export ${exportName}`),
  };
}

function numberOf(text: string): string {
  const digest = createHash('sha256').update(text).digest('hex');
  return BigInt(`0x1${digest.slice(0, 32)}`).toString();
}

function refusal(code: StorageErrorCode, uri: string, problem: string): StorageError {
  return new StorageError(code, `${uri}: ${problem}`, { file: uri });
}

async function unsupported(uri: string, problem: string): Promise<never> {
  throw refusal('STORAGE_UNSUPPORTED', uri, `an NBD server ${problem}`);
}
