import { constants, type Dirent } from 'node:fs';
import fs from 'node:fs/promises';
import {
  type BackendDriver,
  type DirectoryEntry,
  openBackend,
  type StorageBackend,
} from '@downfold/storage';
import { type Calls, nodeCalls } from './calls.ts';
import { calling } from './errno.ts';
import { FileDriver } from './file-driver.ts';
import { factsOf, openFacts } from './file-facts.ts';
import { lockFile } from './lock-file.ts';
import { sharesBlocks } from './sharing.ts';

const OWNER_ONLY = 0o600;
const DEFAULT_MODE = 0o644;

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
    create: (path, { secret }) =>
      openDriver(
        path,
        constants.O_RDWR | constants.O_CREAT | constants.O_EXCL,
        secret ? OWNER_ONLY : DEFAULT_MODE,
        calls,
      ),
    remove: (path) => calling(path, 'unlink', () => fs.unlink(path)),
    rename: (from, to) => calling(from, 'rename', () => fs.rename(from, to)),
    flushDirectory: (path) => flushDirectory(path, calls),
    facts: (path) =>
      calling(path, 'stat', async () => factsOf(await fs.stat(path, { bigint: true }))),
    list: (directory) => calling(directory, 'readdir', () => list(directory)),
    realPath: (path) => calling(path, 'realpath', () => fs.realpath(path)),
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
  const handle = await calling(path, 'open', () => fs.open(path, flags, mode));
  try {
    const { kind, identity, length } = await openFacts(path, handle);
    const deviceLength = kind === 'block-device' ? length : null;
    const writable = (flags & constants.O_RDWR) !== 0;
    return new FileDriver({ handle, label: path, writable, identity, deviceLength }, calls);
  } catch (cause) {
    await handle.close();
    throw cause;
  }
}

async function flushDirectory(path: string, calls: Calls): Promise<void> {
  await calling(path, 'fsync', async () => {
    const handle = await fs.open(path, constants.O_RDONLY | constants.O_DIRECTORY);
    try {
      await calls.fsync(handle.fd);
    } finally {
      await handle.close();
    }
  });
}

async function list(directory: string): Promise<readonly DirectoryEntry[]> {
  const entries = await fs.readdir(directory, { withFileTypes: true });
  return entries.map((entry) => ({ name: entry.name, kind: entryKindOf(entry) }));
}

function entryKindOf(entry: Dirent): DirectoryEntry['kind'] {
  if (entry.isFile()) return 'file';
  if (entry.isDirectory()) return 'directory';
  return entry.isSymbolicLink() ? 'link' : 'other';
}
