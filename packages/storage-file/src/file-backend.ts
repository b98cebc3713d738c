import { type BigIntStats, constants, type Dirent } from 'node:fs';
import fs from 'node:fs/promises';
import {
  type BackendDriver,
  type DirectoryEntry,
  type FileFacts,
  type FileIdentity,
  openBackend,
  type StorageBackend,
  StorageError,
} from '@downfold/storage';
import { byteLength } from '@downfold/units';
import { type Calls, nodeCalls } from './calls.ts';
import { calling } from './errno.ts';
import { FileDriver } from './file-driver.ts';
import { lockFile } from './lock-file.ts';

const SECTOR_BYTES = 512;
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
    lock: (path, request) =>
      lockFile(path, request, async (handle) => (await openFacts(path, handle)).identity, calls),
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

/** What is known of an open file. @throws StorageError `STORAGE_NOT_REGULAR` */
async function openFacts(path: string, handle: fs.FileHandle): Promise<FileFacts> {
  const stats = await calling(path, 'fstat', () => handle.stat({ bigint: true }));
  const facts = await factsOf(stats);
  if (facts.kind === 'file' || facts.kind === 'block-device') return facts;
  throw new StorageError(
    'STORAGE_NOT_REGULAR',
    `${path}: is neither a regular file nor a block device`,
    { file: path },
  );
}

/** Node has no lseek on devices: the kernel's own figure, in sectors. */
async function blockDeviceLength(stats: BigIntStats): Promise<number> {
  const [major, minor] = [
    (stats.rdev >> 8n) & 0xfffn,
    (stats.rdev & 0xffn) | ((stats.rdev >> 12n) & 0xfff00n),
  ];
  const path = `/sys/dev/block/${major}:${minor}/size`;
  return Number(await calling(path, 'read', () => fs.readFile(path, 'utf8'))) * SECTOR_BYTES;
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

async function factsOf(stats: BigIntStats): Promise<FileFacts> {
  const kind = kindOf(stats);
  const lengths = { file: Number(stats.size), directory: 0, other: 0 };
  return {
    kind,
    identity: identityOf(stats),
    length: byteLength(kind === 'block-device' ? await blockDeviceLength(stats) : lengths[kind]),
    allocated: byteLength(Number(stats.blocks) * SECTOR_BYTES),
    modified: stats.mtimeNs.toString(),
  };
}

/** A block device is itself, by its number, whatever file in /dev leads to it. No file has inode 0. */
function identityOf(stats: BigIntStats): FileIdentity {
  if (stats.isBlockDevice()) return { device: stats.rdev.toString(), inode: '0' };
  return { device: stats.dev.toString(), inode: stats.ino.toString() };
}

function kindOf(stats: BigIntStats): FileFacts['kind'] {
  if (stats.isFile()) return 'file';
  if (stats.isBlockDevice()) return 'block-device';
  return stats.isDirectory() ? 'directory' : 'other';
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
