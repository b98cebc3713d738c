import { posix } from 'node:path';
import { type Image, ImageError, type ImageMark } from '@downfold/image';
import {
  type FileIdentity,
  isUrl,
  pathBeside,
  type StorageBackend,
  StorageError,
} from '@downfold/storage';
import { hostOffset } from '@downfold/units';

/** What lies behind the name of an image that has no place for a mark in itself. */
const SUFFIX = '.downfold-mark';
/** A mark is far shorter; what is longer is none of ours. */
const LONGEST_BYTES = 4096;

/** The mark beside an image, and whose it is: another file of the same name is not marked by it. */
interface MarkFile extends ImageMark {
  readonly image: FileIdentity;
}

/** Path of the mark beside an image. */
export function markPath(image: string): string {
  return pathBeside(image, SUFFIX);
}

/** The mark of an open image: the one inside it, or else the one beside it. */
export async function readMark(image: Image, backend: StorageBackend): Promise<ImageMark | null> {
  if (image.mark !== null) return image.mark;
  // what lies "beside" the file of a server is whatever the server says, perhaps that very file
  if (isUrl(image.label)) return null;
  const beside = await readBeside(image.label, backend);
  if (beside === null || beside.image.inode !== image.file.identity.inode) return null;
  const { state, job, date } = beside;
  return { state, job, date };
}

/**
 * Marks an image that is open for writing, durably: inside it, or where it has no place for a mark (raw images, tiny headers)
 * in a file beside it. Null takes every mark away.
 */
export async function writeMark(
  image: Image,
  mark: ImageMark | null,
  backend: StorageBackend,
): Promise<void> {
  if (mark === null) {
    if (image.mark !== null) await image.setMark(null);
    if (!isUrl(image.label)) await removeIfThere(markPath(image.label), backend);
    return flushMark(image, backend);
  }
  const before = await readMark(image, backend);
  if (before?.state === mark.state && before.job === mark.job) return flushMark(image, backend);
  try {
    await image.setMark(mark);
  } catch (cause) {
    if (!hasNoPlace(cause)) throw cause;
    await writeBeside(image, mark, backend);
  }
}

/** Takes the mark beside a file away that is deleted: another file of its name may get its inode. */
export async function forgetMark(
  path: string,
  { inode }: FileIdentity,
  backend: StorageBackend,
): Promise<void> {
  const beside = await readBeside(path, backend);
  if (beside?.image.inode === inode) await removeIfThere(markPath(path), backend);
}

/** Makes durable what a process wrote, or took away, that was killed before it did so itself. */
async function flushMark(image: Image, backend: StorageBackend): Promise<void> {
  await image.flush();
  if (isUrl(image.label)) return;
  await backend.flushDirectory(posix.dirname(image.label), 'mark: its name');
}

function hasNoPlace(cause: unknown): boolean {
  return (
    cause instanceof ImageError &&
    (cause.code === 'IMAGE_NO_ROOM' || cause.code === 'IMAGE_UNSUPPORTED')
  );
}

/** Under another name first, so that a crash leaves the old mark or the new one. */
async function writeBeside(image: Image, mark: ImageMark, backend: StorageBackend): Promise<void> {
  if (isUrl(image.label))
    throw new StorageError(
      'STORAGE_UNSUPPORTED',
      `${image.label}: has no place for a mark, and nothing can lie beside it`,
      { file: image.label },
    );
  const path = markPath(image.label);
  const fresh = pathBeside(image.label, `${SUFFIX}.new`);
  const text: MarkFile = { ...mark, image: image.file.identity };
  await removeIfThere(fresh, backend);
  {
    await using storage = await backend.create(fresh, { secret: false });
    await storage.write(hostOffset(0), new TextEncoder().encode(`${JSON.stringify(text)}\n`), {
      what: 'mark',
    });
    await storage.flush('mark: content before its name');
  }
  await backend.rename(fresh, path);
  await backend.flushDirectory(posix.dirname(path), 'mark: its name');
}

async function removeIfThere(path: string, backend: StorageBackend): Promise<boolean> {
  try {
    await backend.remove(path);
    return true;
  } catch (cause) {
    if (cause instanceof StorageError && cause.code === 'STORAGE_NOT_FOUND') return false;
    throw cause;
  }
}

/** A mark file that cannot be understood still was put there to keep readers away. */
async function readBeside(image: string, backend: StorageBackend): Promise<MarkFile | null> {
  const bytes = await readIfThere(markPath(image), backend);
  if (bytes === null) return null;
  const text = new TextDecoder().decode(bytes);
  const unreadable = async (): Promise<MarkFile> => ({
    state: 'invalid',
    job: '',
    date: '',
    image: (await backend.facts(image)).identity,
  });
  let found: Partial<MarkFile> | null;
  try {
    found = JSON.parse(text) as Partial<MarkFile> | null;
  } catch (cause) {
    if (cause instanceof SyntaxError) return unreadable();
    throw cause;
  }
  const { state, job, date, image: identity } = found ?? {};
  const known = state === 'mixed' || state === 'superseded' || state === 'invalid';
  if (!known || typeof identity?.inode !== 'string') return unreadable();
  return { state, job: String(job), date: String(date), image: identity };
}

async function readIfThere(path: string, backend: StorageBackend): Promise<Uint8Array | null> {
  try {
    await using storage = await backend.open(path, 'read');
    const bytes = new Uint8Array(Math.min(LONGEST_BYTES, await storage.length()));
    await storage.read(hostOffset(0), bytes);
    return bytes;
  } catch (cause) {
    if (cause instanceof StorageError && cause.code === 'STORAGE_NOT_FOUND') return null;
    throw cause;
  }
}
