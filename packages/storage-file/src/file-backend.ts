import fs, { constants, type Dirent } from 'node:fs';
import { promisify } from 'node:util';
import {
  type BackendDriver,
  type CreateFileOptions,
  type DirectoryEntry,
  openBackend,
  type StorageBackend,
} from '@downfold/storage';
import { type Calls, nodeCalls } from './calls.ts';
import { calling } from './errno.ts';
import { FileDriver } from './file-driver.ts';
import { factsOf, openFacts } from './file-facts.ts';
import { lockFile } from './lock-file.ts';
import { openFile } from './open-file.ts';
import { sharesBlocks } from './sharing.ts';

const [unlink, rename, readdir] = [
  promisify(fs.unlink),
  promisify(fs.rename),
  promisify(fs.readdir),
];

const OWNER_ONLY = 0o600;
const DEFAULT_MODE = 0o644;
const PERMISSION_BITS = 0o7777;

/** Files of this machine through plain Node: regular files and block devices. */
export function fileBackend(): StorageBackend {
  return openBackend(fileBackendDriver());
}

/** The driver side of `fileBackend`, for decorators; tests pass system calls of their own. */
export function fileBackendDriver(calls: Calls = nodeCalls): BackendDriver {
  return {
    name: 'file',
    // O_NONBLOCK: opening a FIFO must not wait for a writer
    open: (path, mode) =>
      openDriver(
        path,
        (mode === 'write' ? constants.O_RDWR : constants.O_RDONLY) | constants.O_NONBLOCK,
        DEFAULT_MODE,
        calls,
      ),
    create: (path, options) => createDriver(path, options, calls),
    remove: (path) => calling(path, 'unlink', () => unlink(path)),
    rename: (from, to) => calling(from, 'rename', () => rename(from, to)),
    flushDirectory: (path) => flushDirectory(path, calls),
    facts: (path) =>
      calling(path, 'stat', async () => factsOf(fs.statSync(path, { bigint: true }))),
    list: (directory) => calling(directory, 'readdir', () => list(directory)),
    realPath: (path) => calling(path, 'realpath', async () => fs.realpathSync.native(path)),
    sharesBlocks: (from, to) => sharesBlocks(from, to, calls),
    lock: (path, request) => lockFile(path, request, calls),
  };
}

async function openDriver(
  path: string,
  flags: number,
  mode: number,
  calls: Calls,
): Promise<FileDriver> {
  const descriptor = await openFile(path, flags, mode);
  try {
    const { kind, identity, length } = await openFacts(path, descriptor.fd);
    const deviceLength = kind === 'block-device' ? length : null;
    const writable = (flags & constants.O_RDWR) !== 0;
    return new FileDriver({ descriptor, label: path, writable, identity, deviceLength }, calls);
  } catch (cause) {
    await descriptor[Symbol.asyncDispose]();
    throw cause;
  }
}

const NEW = constants.O_RDWR | constants.O_CREAT | constants.O_EXCL;

async function createDriver(
  path: string,
  { secret, like }: CreateFileOptions,
  calls: Calls,
): Promise<FileDriver> {
  if (like === undefined) return openDriver(path, NEW, secret ? OWNER_ONLY : DEFAULT_MODE, calls);
  const { uid, gid, mode } = await calling(like, 'stat', async () => fs.statSync(like));
  const driver = await openDriver(path, NEW, OWNER_ONLY, calls);
  const { descriptor } = driver;
  try {
    // by the descriptor: another file may have the name by now. The mode last: until then nobody else may read it; a change of owner may take
    // bits of it away
    await calling(path, 'chown', async () => fs.fchownSync(descriptor, uid, gid));
    await calling(path, 'chmod', async () => fs.fchmodSync(descriptor, mode & PERMISSION_BITS));
    return driver;
  } catch (cause) {
    await driver[Symbol.asyncDispose]();
    await calling(path, 'unlink', () => unlink(path));
    throw cause;
  }
}

async function flushDirectory(path: string, calls: Calls): Promise<void> {
  await using opened = await openFile(path, constants.O_RDONLY | constants.O_DIRECTORY);
  await calling(path, 'fsync', () => calls.fsync(opened.fd));
}

async function list(directory: string): Promise<readonly DirectoryEntry[]> {
  const entries = await readdir(directory, { withFileTypes: true });
  return entries.map((entry) => ({ name: entry.name, kind: entryKindOf(entry) }));
}

function entryKindOf(entry: Dirent): DirectoryEntry['kind'] {
  if (entry.isFile()) return 'file';
  if (entry.isDirectory()) return 'directory';
  return entry.isSymbolicLink() ? 'link' : 'other';
}
