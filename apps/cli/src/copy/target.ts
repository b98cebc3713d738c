import { readlinkSync } from 'node:fs';
import { posix } from 'node:path';
import { lockImage } from '@downfold/chain';
import type { Image } from '@downfold/image';
import { pathBeside, pathFrom, StorageError, WRITER } from '@downfold/storage';
import {
  type Access,
  assertNoJournal,
  backend,
  environmentFor,
  openForWriting,
} from '../environment.ts';
import { UsageError } from '../failure.ts';
import type { NewFormat, NewImageOptions } from '../new-image.ts';
import { absolute, directoryOf } from '../paths.ts';
import { isFixed, kindOf, overwrite } from './in-place.ts';

const SUFFIX = '.downfold-part';
/** Links that lead to links, at most; as Linux. */
const MOST_LINKS = 40;

/** What an unfinished copy is called, beside the file that it is to become. One that is there is taken for what an interrupted copy left, and removed. */
export function partOf(path: string): string {
  return pathBeside(path, SUFFIX);
}

/** Where a disk is copied to. */
export interface Target extends AsyncDisposable {
  readonly image: Image;
  /** Where nothing is written it shows zeros, or what a backing file shows. */
  readonly fresh: boolean;
  /** Makes the copy durable, and known by its name. Without it, what was begun is removed when it is closed, and what was there before stays. */
  finish(): Promise<void>;
}

/** The file of a name, links resolved, also a last one that leads to no file yet: it is made there. */
export async function targetPath(file: string, links = 0): Promise<string> {
  const path = absolute(file);
  if ((await kindOf(path)) !== null) return await backend.realPath(path);
  const to = linkAt(path);
  if (to === null) return path;
  if (links === MOST_LINKS) throw new UsageError(`${path}: too many levels of symbolic links`);
  // as the system takes it: from where the directory really lies
  const directory = await backend.realPath(posix.dirname(path));
  return await targetPath(pathFrom(directory, to), links + 1);
}

/** Where a symbolic link leads; null: it is none, or there is nothing. */
function linkAt(path: string): string | null {
  try {
    return readlinkSync(path);
  } catch (cause) {
    if (NO_LINK.has(String((cause as NodeJS.ErrnoException).code))) return null;
    throw cause;
  }
}

const NO_LINK: ReadonlySet<string> = new Set(['ENOENT', 'EINVAL', 'ENOTDIR']);

/**
 * A new image that gets its name only when it is whole: until `finish` it has another one, and a file that was there before is what it was.
 * A block device is no name to be given, and is written in place; so is a file that no other can take the place of, or that belongs to
 * somebody to whom we cannot give one.
 * @throws StorageError `STORAGE_LOCKED` when somebody uses what is to be replaced
 */
export async function newTarget(
  path: string,
  format: NewFormat,
  options: NewImageOptions,
): Promise<Target> {
  const kind = await kindOf(path);
  if (kind === 'directory') throw new UsageError(`${path}: is a directory`);
  if (kind === 'block-device' && format.name === 'raw') return await presentTarget(path, 'raw');
  if (kind === 'block-device' || (kind !== null && isFixed(path)))
    return await inPlace(path, format, options);
  try {
    return await replacing(path, kind !== null, format, options);
  } catch (cause) {
    if (!isForeign(cause)) throw cause;
    return await inPlace(path, format, options);
  }
}

/** Whether a new file could not be given to the owner, or the group, of the one that it was to replace. */
function isForeign(cause: unknown): boolean {
  return cause instanceof StorageError && cause.details['call'] === 'chown';
}

async function replacing(
  path: string,
  isThere: boolean,
  format: NewFormat,
  options: NewImageOptions,
): Promise<Target> {
  await using opened = new AsyncDisposableStack();
  const environment = environmentFor(path, {});
  if (isThere) {
    opened.use(await lockImage(path, WRITER, environment));
    await assertNoJournal(path);
    await assertWritable(path);
  }
  const part = partOf(path);
  await removeLeftover(part);
  // who may not read what is there may not read the copy that replaces it
  const like = isThere ? { like: path } : {};
  const storage = await backend.create(part, { secret: false, ...like });
  let finished = false;
  opened.defer(async () => {
    if (!finished) await backend.remove(part);
  });
  opened.use(storage);
  opened.use(await lockImage(part, WRITER, environment));
  const image = opened.use(await format.create(storage, options));
  const all = opened.move();
  return {
    image,
    fresh: format.showsZeros,
    finish: async () => {
      await image.flush();
      await backend.rename(part, path);
      finished = true;
      await backend.flushDirectory(directoryOf(path), 'copy: name of the whole image');
    },
    [Symbol.asyncDispose]: () => all.disposeAsync(),
  };
}

/** Who protected a file from writing does not want it replaced either. @throws StorageError `STORAGE_ACCESS` */
async function assertWritable(path: string): Promise<void> {
  await using _ = await backend.open(path, 'write');
}

/** An image that is there already, checked, and written in place. */
export async function presentTarget(
  path: string,
  formatName: string,
  access: Access = {},
): Promise<Target> {
  const opened = await openForWriting(path, formatName, access);
  return {
    ...opened,
    fresh: false,
    finish: () => opened.image.flush(),
    [Symbol.asyncDispose]: () => opened[Symbol.asyncDispose](),
  };
}

/** @throws UsageError when an image that was there before cannot hold the copy */
export function assertFits({ image }: Target, length: number, target: string): void {
  const { virtualSize } = image.geometry;
  if (virtualSize < length)
    throw new UsageError(
      `${target}: has ${virtualSize} bytes, and the copy needs ${length}; 'downfold resize' makes it larger`,
    );
}

/** Whether the copy ends inside a cluster, or subcluster, of which the rest is to stay what it is. */
export function cutsCluster({ image }: Target, length: number): boolean {
  const { virtualSize, allocationGranularity } = image.geometry;
  return virtualSize > length && length % allocationGranularity > 0;
}

async function inPlace(path: string, format: NewFormat, options: NewImageOptions): Promise<Target> {
  await using opened = new AsyncDisposableStack();
  const { storage } = opened.use(await overwrite(path));
  const image = opened.use(await format.create(storage, options));
  const all = opened.move();
  return {
    image,
    fresh: format.showsZeros,
    finish: () => image.flush(),
    [Symbol.asyncDispose]: () => all.disposeAsync(),
  };
}

/** What an earlier copy left that was killed; one that somebody still writes is in use. */
async function removeLeftover(part: string): Promise<void> {
  if ((await kindOf(part)) === null) return;
  await using _lock = await lockImage(part, WRITER, environmentFor(part, {}));
  await backend.remove(part);
}
