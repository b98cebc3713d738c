import fs from 'node:fs';
import { posix } from 'node:path';
import { lockImage, recognise } from '@downfold/chain';
import { type Storage, StorageError, WRITER } from '@downfold/storage';
import { byteLength } from '@downfold/units';
import { assertNoJournal, backend, environmentFor, formats } from '../environment.ts';
import { UsageError } from '../failure.ts';

/**
 * Whether no other file can take the place of one that is there: something is mounted on it, as containers have it, or its directory is not ours to change.
 */
export function isFixed(path: string): boolean {
  try {
    fs.accessSync(posix.dirname(path), fs.constants.W_OK | fs.constants.X_OK);
  } catch (cause) {
    if (UNCHANGEABLE.has(String((cause as NodeJS.ErrnoException).code))) return true;
    throw cause;
  }
  return isMountPoint(path);
}

const UNCHANGEABLE: ReadonlySet<string> = new Set(['EACCES', 'EPERM', 'EROFS']);

/** Source: proc(5), `mountinfo`: the fifth field, in which blanks and backslashes are octal. */
function isMountPoint(path: string): boolean {
  if (process.platform !== 'linux') return false;
  const lines = fs.readFileSync('/proc/self/mountinfo', 'utf8').split('\n');
  return lines.some((line) => {
    const escaped = line.split(' ', 5)[4] ?? '';
    const at = escaped.replace(/\\([0-7]{3})/g, (_, octal: string) =>
      String.fromCharCode(Number.parseInt(octal, 8)),
    );
    return at === path;
  });
}

/** A file or block device that is there, to be overwritten: emptied, where it can be. What was there is lost from then on. To be closed as a whole. */
export interface Overwritten extends AsyncDisposable {
  readonly storage: Storage;
}

/**
 * Opens what is to be overwritten.
 * @throws UsageError for a device that holds an image, or that the system uses; StorageError `STORAGE_LOCKED`
 */
export async function overwrite(path: string): Promise<Overwritten> {
  await using opened = new AsyncDisposableStack();
  opened.use(await lockImage(path, WRITER, environmentFor(path, {})));
  await assertNoJournal(path);
  const { kind } = await backend.facts(path);
  if (kind === 'block-device') assertUnused(path);
  const storage = opened.use(await backend.open(path, 'write'));
  if (kind === 'block-device') await assertNoImage(path, storage);
  else {
    await storage.setLength(byteLength(0));
    await storage.flush('overwrite: emptied');
  }
  const all = opened.move();
  return { storage, [Symbol.asyncDispose]: () => all.disposeAsync() };
}

/** A device that is mounted, or a part of another one, opens for nobody else alone. Source: open(2), O_EXCL. */
function assertUnused(path: string): void {
  try {
    fs.closeSync(fs.openSync(path, fs.constants.O_RDWR | fs.constants.O_EXCL));
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== 'EBUSY') throw cause;
    throw new UsageError(`${path}: is in use by the system: mounted, or a part of another device`);
  }
}

async function assertNoImage(path: string, storage: Storage): Promise<void> {
  const found = await recognise(storage, formats);
  if (found !== null)
    throw new UsageError(
      `${path}: holds a ${found.name} image; zeros over its first sector forget it, and 'convert -n' copies into it`,
    );
}

/** What kind of file has a name; null: none. */
export async function kindOf(path: string): Promise<string | null> {
  try {
    return (await backend.facts(path)).kind;
  } catch (cause) {
    if (cause instanceof StorageError && cause.code === 'STORAGE_NOT_FOUND') return null;
    throw cause;
  }
}
