import { openStorage, type Storage, type StorageDriver, StorageError } from '@downfold/storage';

/** Stands for a data file that is not opened: the image that names it can be described, and whoever reads its data is refused. */
export function unreadDataFile(image: string, name: string): Storage {
  const refuse = (): Promise<never> =>
    Promise.reject(
      new StorageError('STORAGE_UNSUPPORTED', `${image}: its data file '${name}' is not opened`, {
        file: image,
      }),
    );
  const driver: StorageDriver = {
    label: name,
    writable: false,
    supports: { discard: false, resize: false },
    identity: { device: '', inode: '' },
    descriptor: null,
    length: refuse,
    read: refuse,
    runAt: refuse,
    write: refuse,
    writeZeroes: refuse,
    copyFrom: refuse,
    discard: refuse,
    setLength: refuse,
    flush: refuse,
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
  return openStorage(driver);
}

/** Whether a file only stands for one, also where a key is between: it is no file of any device. */
export function isUnread({ identity }: Storage): boolean {
  return identity.device === '' && identity.inode === '';
}
