import { lockImage } from '@downfold/chain';
import type { Image } from '@downfold/image';
import type { Qcow2CreateOptions } from '@downfold/qcow2';
import { StorageError, WRITER } from '@downfold/storage';
import { backend, environmentFor, formatOf } from '../environment.ts';
import { UsageError } from '../failure.ts';
import type { NewFormat } from '../new-image.ts';
import { absolute, directoryOf } from '../paths.ts';

/** What an unfinished copy is called, beside the file that it is to become. */
const SUFFIX = '.downfold-part';

/** Where a disk is copied to. */
export interface Target extends AsyncDisposable {
  readonly image: Image;
  /** Where nothing is written it shows zeros, or what a backing file shows. */
  readonly fresh: boolean;
  /** Makes the copy durable, and known by its name. Without it, what was begun is removed when it is closed, and what was there before stays. */
  finish(): Promise<void>;
}

/** The file of a name, links resolved; where there is none, the name. */
export async function targetPath(file: string): Promise<string> {
  const path = absolute(file);
  return (await kindOf(path)) === null ? path : await backend.realPath(path);
}

/**
 * A new image that gets its name only when it is whole: until `finish` it has another one, and a file that was there before is what it was.
 * A block device is no name to be given, and is written in place.
 * @throws StorageError `STORAGE_LOCKED` when somebody uses what is to be replaced
 */
export async function newTarget(
  path: string,
  format: NewFormat,
  options: Qcow2CreateOptions,
): Promise<Target> {
  await using opened = new AsyncDisposableStack();
  const kind = await kindOf(path);
  if (kind === 'directory') throw new UsageError(`${path}: is a directory`);
  if (kind === 'block-device') return await onDevice(path, format);
  const environment = environmentFor(path, {});
  if (kind !== null) opened.use(await lockImage(path, WRITER, environment));
  const part = `${path}${SUFFIX}`;
  await removeLeftover(part);
  const storage = await backend.create(part, { secret: false });
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
    fresh: true,
    finish: async () => {
      await image.flush();
      await backend.rename(part, path);
      finished = true;
      await backend.flushDirectory(directoryOf(path), 'copy: name of the whole image');
    },
    [Symbol.asyncDispose]: () => all.disposeAsync(),
  };
}

/** An image that is there already, written in place. */
export async function presentTarget(path: string, formatName: string): Promise<Target> {
  await using opened = new AsyncDisposableStack();
  opened.use(await lockImage(path, WRITER, environmentFor(path, {})));
  const storage = opened.use(await backend.open(path, 'write'));
  const image = opened.use(await formatOf(formatName).open(storage, { mode: 'write' }));
  const all = opened.move();
  return {
    image,
    fresh: false,
    finish: () => image.flush(),
    [Symbol.asyncDispose]: () => all.disposeAsync(),
  };
}

async function onDevice(path: string, format: NewFormat): Promise<Target> {
  if (format.name === 'raw') return await presentTarget(path, 'raw');
  throw new UsageError(
    `${path}: is a block device; make the ${format.name} image on it first, and copy with -n`,
  );
}

/** What an earlier copy left that was killed; one that somebody still writes is in use. */
async function removeLeftover(part: string): Promise<void> {
  if ((await kindOf(part)) === null) return;
  await using _lock = await lockImage(part, WRITER, environmentFor(part, {}));
  await backend.remove(part);
}

async function kindOf(path: string): Promise<string | null> {
  try {
    return (await backend.facts(path)).kind;
  } catch (cause) {
    if (cause instanceof StorageError && cause.code === 'STORAGE_NOT_FOUND') return null;
    throw cause;
  }
}
