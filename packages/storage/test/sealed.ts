import type { StorageAbility } from '../src/compliance/index.ts';
import { type BackendDriver, StorageError, type StorageErrorCode } from '../src/index.ts';
import { type Change, withFiles } from './support.ts';

/** What a place cannot do whose files others make, with a length that stays: the exports of a server. */
const ABSENT: readonly StorageAbility[] = [
  'names',
  'grow',
  'resize',
  'locks',
  'allocated',
  'sparse',
  'links',
  'special-files',
  'permissions',
  'power-cut',
];

const refuse = async (code: StorageErrorCode, path: string): Promise<never> => {
  throw new StorageError(code, `${path}: ${code}`, { file: path });
};

/** The driver of such a place over one that can do everything. */
export function sealedDriver(driver: BackendDriver): BackendDriver {
  const files = withFiles(driver, (file, path) => {
    const fits = async (end: number): Promise<unknown> =>
      end > (await file.length()) ? await refuse('STORAGE_NO_SPACE', path) : null;
    return {
      supports: { discard: true, resize: false },
      write: async (offset, source, what) => {
        await fits(offset + source.length);
        await file.write(offset, source, what);
      },
      writeZeroes: async (range, what) => {
        await fits(range.offset + range.length);
        await file.writeZeroes(range, what);
      },
    };
  });
  return {
    ...files,
    create: (path) => refuse('STORAGE_UNSUPPORTED', path),
    remove: (path) => refuse('STORAGE_UNSUPPORTED', path),
    rename: (path) => refuse('STORAGE_UNSUPPORTED', path),
    list: (path) => refuse('STORAGE_UNSUPPORTED', path),
    flushDirectory: (path) => refuse('STORAGE_UNSUPPORTED', path),
    lock: (path) => refuse('STORAGE_UNSUPPORTED', path),
    facts: async (path) => {
      const facts = await driver.facts(path);
      return { ...facts, allocated: facts.length };
    },
  };
}

/** The same, where nothing can be written. */
function readOnlyDriver(driver: BackendDriver): BackendDriver {
  const sealed = sealedDriver(driver);
  return {
    ...sealed,
    open: async (path, mode) =>
      mode === 'write' ? await refuse('STORAGE_UNSUPPORTED', path) : await sealed.open(path, mode),
  };
}

export const sealed: Change = { placed: true, without: ABSENT, driver: sealedDriver };
export const readOnly: Change = {
  placed: true,
  without: [...ABSENT, 'write'],
  driver: readOnlyDriver,
};
