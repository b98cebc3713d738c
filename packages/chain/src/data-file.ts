import type { Image } from '@downfold/image';
import {
  closesWith,
  type OpenMode,
  READER,
  type Storage,
  type StorageBackend,
  WRITER,
} from '@downfold/storage';
import { ChainError } from './errors.ts';
import { identityKey } from './identity.ts';
import type { DataFileFacts } from './layer.ts';
import { resolveDataFile, rootsFor } from './locate.ts';
import { lockImage } from './lock.ts';
import type { ChainEnvironment } from './policy.ts';
import { isUnread, unreadDataFile } from './unread-data-file.ts';

/** Opens the external data file that an image names, in the mode of the image. */
type DataFileOpener = (name: string, mode: OpenMode) => Promise<Storage>;

/**
 * How the data file of the image at `path`, a real path, is opened, as the policy says; undefined: it is not. It lies where backing files may, is
 * another file than the image, and is locked while it is open: QEMU's locks, as an image of that mode has them.
 */
export function dataFileOpener(
  path: string,
  image: Storage,
  environment: ChainEnvironment,
): DataFileOpener | undefined {
  const { allowDataFile } = environment.policy;
  if (allowDataFile === 'unread') return (name) => Promise.resolve(unreadDataFile(path, name));
  if (!allowDataFile) return undefined;
  return async (name, mode) => {
    const { backend } = environment;
    const roots = await rootsFor(path, environment);
    const located = await resolveDataFile(name, path, roots, backend);
    const { identity } = await backend.facts(located);
    if (identityKey(identity) === identityKey(image.identity))
      throw new ChainError('CHAIN_LOOP', `${path}: is its own data file`, { image: path, name });
    await using opened = new AsyncDisposableStack();
    const request = mode === 'write' ? WRITER : READER;
    const { dataFileLocks } = environment;
    opened.use(
      dataFileLocks === undefined
        ? await lockImage(located, request, environment)
        : await dataFileLocks.hold(located, path, request, environment),
    );
    const storage = await backend.open(located, mode);
    closesWith(storage, opened.move());
    return storage;
  };
}

/** What is to be remembered of an open image's data file; null: it has none, or that is not open. */
export async function dataFileFacts(
  image: Image,
  backend: StorageBackend,
): Promise<DataFileFacts | null> {
  const data = openDataFileOf(image);
  if (data === null) return null;
  const { modified } = await backend.facts(data.label);
  return { identity: data.identity, length: await data.length(), modified };
}

/** The external data file of an open image; null: it has none, or only something that stands for it. What decrypts its own file is none. */
export function openDataFileOf({ data, file }: Pick<Image, 'data' | 'file'>): Storage | null {
  return isUnread(data) || identityKey(data.identity) === identityKey(file.identity) ? null : data;
}
