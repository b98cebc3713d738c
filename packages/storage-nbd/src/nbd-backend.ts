import type { ClientTls } from '@downfold/nbd';
import {
  type BackendDriver,
  type FileIdentity,
  LockTable,
  numberOf,
  type OpenMode,
  openBackend,
  type StorageBackend,
  StorageError,
} from '@downfold/storage';
import { Connections } from './connections.ts';
import { NbdDriver } from './nbd-driver.ts';
import { locate, type NbdLocation } from './nbd-uri.ts';

/** How servers are reached. */
export interface NbdBackendOptions {
  /** For `nbds` URIs, which are refused without it. `nbd` URIs go without TLS. */
  readonly tls?: ClientTls | undefined;
}

/**
 * Exports of NBD servers as files. Paths are URIs: `nbd://HOST[:PORT]/EXPORT`, `nbd+unix:///EXPORT?socket=PATH`, and `nbds` for TLS.
 * Each export has one connection; when it is lost, all that is open there is: nothing is sent again.
 */
export function nbdBackend(options: NbdBackendOptions = {}): StorageBackend {
  return openBackend(nbdBackendDriver(options));
}

/** The driver side of `nbdBackend`, for decorators. */
export function nbdBackendDriver({ tls }: NbdBackendOptions = {}): BackendDriver {
  const connections = new Connections(tls);
  const locks = new LockTable();
  const open = async (path: string, mode: OpenMode): Promise<NbdDriver> => {
    const location = await locate(path);
    const { of, release } = await connections.take(location);
    const writable = mode === 'write';
    try {
      if (writable) of.assertWritable();
    } catch (cause) {
      await release();
      throw cause;
    }
    return new NbdDriver(of, { identity: identityOf(location), writable, release });
  };
  return {
    name: 'nbd',
    open,
    create: (path) => unsupported(path, 'creates no exports'),
    remove: (path) => unsupported(path, 'removes no exports'),
    rename: (path) => unsupported(path, 'renames no exports'),
    list: (path) => unsupported(path, 'has no directories'),
    flushDirectory: (path) => unsupported(path, 'has no directories'),
    sharesBlocks: async () => false,
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
    lock: async (path, request) => {
      await using file = await open(path, 'read');
      return locks.lock(file.label, file.identity, request, { remote: true });
    },
  };
}

/** Server and name, hashed to numbers of 128 bits: no file of this machine has such a device. */
function identityOf({ serverKey, exportName }: NbdLocation): FileIdentity {
  return {
    device: numberOf(`nbd server ${serverKey}`),
    inode: numberOf(`nbd export ${exportName}`),
  };
}

async function unsupported(uri: string, problem: string): Promise<never> {
  throw new StorageError('STORAGE_UNSUPPORTED', `${uri}: an NBD server ${problem}`, { file: uri });
}
