import { posix } from 'node:path';
import { byteLength, hostOffset } from '@downfold/units';
import { type BackendDriver, type OpenMode, StorageError } from '../../src/index.ts';
import { withFiles } from '../support.ts';
import type { Mutant } from './mutant.ts';

const exists = (driver: BackendDriver, path: string): Promise<boolean> =>
  driver.facts(path).then(
    () => true,
    () => false,
  );

/** Names, links and facts that go wrong. */
export const nameMutants: readonly Mutant[] = [
  {
    name: 'whether blocks can be shared is found out by sharing some',
    killedBy: 'shares-blocks/changes-nothing',
    driver: (driver) => ({
      ...driver,
      sharesBlocks: async (from, to) => {
        await using source = await driver.open(from, 'read');
        await using target = await driver.open(to, 'write');
        const length = byteLength(4096);
        await target.copyFrom([{ source, from: hostOffset(0), to: hostOffset(0), length }], 'data');
        return true;
      },
    }),
  },
  {
    name: 'create opens what exists',
    killedBy: 'create/is-exclusive',
    driver: (driver) => ({
      ...driver,
      create: async (path, options) =>
        (await exists(driver, path)) ? driver.open(path, 'write') : driver.create(path, options),
    }),
  },
  {
    name: 'create looks first and creates then',
    killedBy: 'create/one-of-many-wins',
    driver: (driver) => ({
      ...driver,
      create: async (path, options) => {
        if (path === '/' || (await exists(driver, path))) return driver.create(path, options);
        await new Promise((resolve) => setImmediate(resolve));
        return driver.create(path, options).catch(() => driver.open(path, 'write'));
      },
    }),
  },
  {
    name: 'create finds another directory when its own is missing',
    killedBy: 'create/needs-its-directory',
    driver: (driver) => ({
      ...driver,
      create: (path, options) => driver.create(`/${posix.basename(path)}`, options),
    }),
  },
  {
    name: 'names end at a space',
    killedBy: 'create/any-name',
    driver: (driver) => ({
      ...driver,
      create: (path, options) => driver.create(path.split(' ')[0] ?? path, options),
    }),
  },
  {
    name: 'create ignores secret',
    killedBy: 'create/secret-is-private',
    driver: (driver) => ({
      ...driver,
      create: (path) => driver.create(path, { secret: false }),
    }),
  },
  {
    name: 'opening a missing file creates it',
    killedBy: 'open/missing-is-not-found',
    driver: (driver) => ({
      ...driver,
      open: async (path: string, mode: OpenMode) =>
        path === '/' || (await exists(driver, path))
          ? driver.open(path, mode)
          : driver.create(path, { secret: false }),
    }),
  },
  {
    name: 'a directory opens as an empty file',
    killedBy: 'open/directory-is-refused',
    driver: (driver) => ({
      ...driver,
      open: (path, mode) =>
        path === '/' ? driver.create('/directory', { secret: false }) : driver.open(path, mode),
    }),
  },
  {
    name: 'a special file opens as an empty file',
    killedBy: 'open/special-file-is-refused',
    driver: (driver) => ({
      ...driver,
      open: (path, mode) =>
        path === '/special'
          ? driver.create('/ordinary', { secret: false })
          : driver.open(path, mode),
    }),
  },
  {
    name: 'files opened for reading are writable',
    killedBy: 'read-only/refuses-every-change',
    driver: (driver) => ({ ...driver, open: (path) => driver.open(path, 'write') }),
  },
  {
    name: 'removing what is missing succeeds',
    killedBy: 'remove/takes-the-name-away',
    driver: (driver) => ({
      ...driver,
      remove: async (path) => {
        if (await exists(driver, path)) await driver.remove(path);
      },
    }),
  },
  {
    name: 'rename copies the name',
    killedBy: 'rename/moves-the-name',
    driver: (driver) => ({
      ...driver,
      rename: async (from, to) => {
        await driver.rename(from, to);
        await driver.create(from, { secret: false });
      },
    }),
  },
  {
    name: 'rename does not replace',
    killedBy: 'rename/replaces',
    driver: (driver) => ({
      ...driver,
      rename: async (from, to) => {
        if (await exists(driver, to)) throw new StorageError('STORAGE_EXISTS', `${to}: exists`);
        await driver.rename(from, to);
      },
    }),
  },
  {
    name: 'rename removes the target first, and then finds nothing to rename',
    killedBy: 'rename/refused-changes-nothing',
    driver: (driver) => ({
      ...driver,
      rename: async (from, to) => {
        if (await exists(driver, to)) await driver.remove(to);
        await driver.rename(from, to);
      },
    }),
  },
  {
    name: 'identity is made of the name',
    killedBy: 'identity/same-after-rename',
    driver: (driver) => {
      const identityOf = (path: string) => ({
        device: '1',
        inode: String(path.length * 1000 + path.charCodeAt(path.length - 1)),
      });
      return {
        ...withFiles(driver, (_file, path) => ({ identity: identityOf(path) })),
        facts: async (path) => ({ ...(await driver.facts(path)), identity: identityOf(path) }),
      };
    },
  },
  {
    name: 'every opening has an identity of its own',
    killedBy: 'identity/same-file-same-identity',
    driver: (driver) => {
      let openings = 0;
      return withFiles(driver, () => ({ identity: { device: '1', inode: String(openings++) } }));
    },
  },
  {
    name: 'a link has an identity of its own',
    killedBy: 'identity/same-through-links',
    driver: (driver) =>
      withFiles(driver, (file, path) => ({
        identity: path === '/symbolic' ? { device: '1', inode: '999' } : file.identity,
      })),
  },
  {
    name: 'all files have one identity',
    killedBy: 'identity/differs-between-files',
    driver: (driver) => {
      const identity = { device: '1', inode: '1' };
      return {
        ...withFiles(driver, () => ({ identity })),
        facts: async (path) => ({ ...(await driver.facts(path)), identity }),
      };
    },
  },
  {
    name: 'facts remember the first length',
    killedBy: 'facts/of-a-file',
    driver: (driver) => {
      const lengths = new Map<string, Awaited<ReturnType<BackendDriver['facts']>>['length']>();
      return {
        ...driver,
        facts: async (path) => {
          const facts = await driver.facts(path);
          const length = lengths.get(path) ?? facts.length;
          lengths.set(path, length);
          return { ...facts, length };
        },
      };
    },
  },
  {
    name: 'directories are something else',
    killedBy: 'facts/of-a-directory',
    driver: (driver) => ({
      ...driver,
      facts: async (path) => ({ ...(await driver.facts(path)), kind: 'other' }),
    }),
  },
  {
    name: 'everything is a file',
    killedBy: 'facts/of-a-special-file',
    driver: (driver) => ({
      ...driver,
      facts: async (path) => ({ ...(await driver.facts(path)), kind: 'file' }),
    }),
  },
  {
    name: 'the time of the last change stands still',
    killedBy: 'facts/modified-changes-with-a-write',
    driver: (driver) => ({
      ...driver,
      facts: async (path) => ({ ...(await driver.facts(path)), modified: '0' }),
    }),
  },
  {
    name: 'a list holds paths',
    killedBy: 'list/names-what-is-there',
    driver: (driver) => ({
      ...driver,
      list: async (directory) =>
        (await driver.list(directory)).map((entry) => ({ ...entry, name: `/${entry.name}` })),
    }),
  },
  {
    name: 'a missing directory lists as empty',
    killedBy: 'list/missing-is-not-found',
    driver: (driver) => ({ ...driver, list: (path) => driver.list(path).catch(() => []) }),
  },
  {
    name: 'a real path ends in a slash',
    killedBy: 'real-path/of-a-file-is-itself',
    driver: (driver) => ({
      ...driver,
      realPath: async (path) => `${await driver.realPath(path)}/`,
    }),
  },
  {
    name: 'the real path of a link is the link',
    killedBy: 'real-path/follows-links',
    driver: (driver) => ({
      ...driver,
      realPath: async (path) => {
        await driver.realPath(path);
        return path;
      },
    }),
  },
  {
    name: 'the real path of what is missing is the path',
    killedBy: 'facts/missing-is-not-found',
    driver: (driver) => ({ ...driver, realPath: async (path) => path }),
  },
];
