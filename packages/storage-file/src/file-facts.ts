import type { BigIntStats } from 'node:fs';
import fs from 'node:fs/promises';
import { type FileFacts, type FileIdentity, StorageError } from '@downfold/storage';
import { byteLength } from '@downfold/units';
import { calling } from './errno.ts';

const SECTOR_BYTES = 512;

/** What is known of an open file. @throws StorageError `STORAGE_NOT_REGULAR` */
export async function openFacts(path: string, handle: fs.FileHandle): Promise<FileFacts> {
  const stats = await calling(path, 'fstat', () => handle.stat({ bigint: true }));
  const facts = await factsOf(stats);
  if (facts.kind === 'file' || facts.kind === 'block-device') return facts;
  throw new StorageError(
    'STORAGE_NOT_REGULAR',
    `${path}: is neither a regular file nor a block device`,
    { file: path },
  );
}

/** What `stat` tells. */
export async function factsOf(stats: BigIntStats): Promise<FileFacts> {
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

/** Node has no lseek on devices: the kernel's own figure, in sectors. */
async function blockDeviceLength(stats: BigIntStats): Promise<number> {
  const [major, minor] = [
    (stats.rdev >> 8n) & 0xfffn,
    (stats.rdev & 0xffn) | ((stats.rdev >> 12n) & 0xfff00n),
  ];
  const path = `/sys/dev/block/${major}:${minor}/size`;
  return Number(await calling(path, 'read', () => fs.readFile(path, 'utf8'))) * SECTOR_BYTES;
}
