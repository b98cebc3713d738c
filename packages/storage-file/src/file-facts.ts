import fs, { type BigIntStats } from 'node:fs';
import { type FileFacts, type FileIdentity, StorageError } from '@downfold/storage';
import { byteLength } from '@downfold/units';
import { calling } from './errno.ts';

const SECTOR_BYTES = 512;

/** What is known of an open file. @throws StorageError `STORAGE_NOT_REGULAR` */
export async function openFacts(path: string, fd: number): Promise<FileFacts> {
  const stats = await calling(path, 'fstat', async () => fs.fstatSync(fd, { bigint: true }));
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

/**
 * A block device is itself, by its number, whatever file in /dev leads to it. That number is another one's after the next start of the machine:
 * in place of an inode it has one made of what it says of itself then too, or 0, which no file has.
 */
function identityOf(stats: BigIntStats): FileIdentity {
  if (stats.isBlockDevice())
    return { device: stats.rdev.toString(), inode: String(numberOf(deviceName(stats))) };
  return { device: stats.dev.toString(), inode: stats.ino.toString() };
}

function kindOf(stats: BigIntStats): FileFacts['kind'] {
  if (stats.isFile()) return 'file';
  if (stats.isBlockDevice()) return 'block-device';
  return stats.isDirectory() ? 'directory' : 'other';
}

/** What the kernel knows of a block device. */
function sysfsOf({ rdev }: BigIntStats): string {
  const [major, minor] = [(rdev >> 8n) & 0xfffn, (rdev & 0xffn) | ((rdev >> 12n) & 0xfff00n)];
  return `/sys/dev/block/${major}:${minor}`;
}

/** Of these the first that is there: of device mapper and LVM, of disks, of loop devices. A partition is a number of its disk. */
const NAMES = ['dm/uuid', 'wwid', 'device/wwid', 'serial', 'loop/backing_file'] as const;

/** A name that a device has after the next start of the machine too; empty: none is known. */
function deviceName(stats: BigIntStats): string {
  const sysfs = sysfsOf(stats);
  const partition = textAt(`${sysfs}/partition`);
  for (const name of NAMES) {
    const text = textAt(`${sysfs}/${partition === '' ? '' : '../'}${name}`);
    if (text !== '') return `${name} ${text} ${partition}`;
  }
  return '';
}

function textAt(path: string): string {
  try {
    return fs.readFileSync(path, 'utf8').trim();
  } catch (cause) {
    if (NO_NAME.has(String((cause as NodeJS.ErrnoException).code))) return '';
    throw cause;
  }
}

/** A device does not have such a name, is gone, or does not tell us. */
const NO_NAME: ReadonlySet<string> = new Set(['ENOENT', 'ENODEV', 'ENXIO', 'EINVAL', 'EACCES']);

/** A number below 2^53 for a text: FNV-1a, twice; 0 for none. */
function numberOf(text: string): number {
  if (text === '') return 0;
  let [high, low] = [0x811c9dc5, 0x01000193];
  for (const byte of Buffer.from(text)) {
    high = Math.imul(high ^ byte, 0x01000193);
    low = Math.imul(low ^ byte, 0x85ebca6b);
  }
  return 1 + (high >>> 12) * 2 ** 32 + (low >>> 0);
}

/** Node has no lseek on devices: the kernel's own figure, in sectors. */
async function blockDeviceLength(stats: BigIntStats): Promise<number> {
  const path = `${sysfsOf(stats)}/size`;
  return (
    Number(await calling(path, 'read', async () => fs.readFileSync(path, 'utf8'))) * SECTOR_BYTES
  );
}
