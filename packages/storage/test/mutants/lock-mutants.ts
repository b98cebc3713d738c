import {
  type BackendDriver,
  type LockRequest,
  LockTable,
  type StorageLock,
} from '../../src/index.ts';
import type { Mutant } from './mutant.ts';

/** A driver whose `lock` is another. */
function locking(
  lock: (driver: BackendDriver, path: string, request: LockRequest) => Promise<StorageLock>,
): Pick<Mutant, 'driver'> {
  return {
    driver: (driver) => ({ ...driver, lock: (path, request) => lock(driver, path, request) }),
  };
}

/** As `driver` does it, by locks of its own kept under the key that `keyOf` makes. */
function keyed(keyOf: (path: string, lock: StorageLock) => string): Pick<Mutant, 'driver'> {
  return {
    driver: (driver) => {
      const table = new LockTable();
      return {
        ...driver,
        lock: async (path, request) => {
          const lock = await driver.lock(path, { takes: [], forbids: [] });
          const held = table.take(keyOf(path, lock), path, request);
          return {
            ...lock,
            change: async (next) => held.change(next),
            [Symbol.asyncDispose]: async () => held.release(),
          };
        },
      };
    },
  };
}

export const lockMutants: readonly Mutant[] = [
  {
    name: 'locks exclude nobody',
    killedBy: 'lock/readers-share-and-writers-do-not',
    ...locking((driver, path) => driver.lock(path, { takes: [], forbids: [] })),
  },
  {
    name: 'only writing is locked',
    killedBy: 'lock/each-permission-by-itself',
    ...locking((driver, path, { takes, forbids }) => {
      const writing = (all: LockRequest['takes']): LockRequest['takes'] =>
        all.filter((one) => one === 'write' || one === 'consistent-read');
      return driver.lock(path, { takes: writing(takes), forbids: writing(forbids) });
    }),
  },
  {
    name: 'one lock for all files',
    killedBy: 'lock/of-one-file-is-not-of-another',
    ...keyed(() => 'all'),
  },
  {
    name: 'held for good',
    killedBy: 'lock/is-over-when-disposed-of',
    ...locking(async (driver, path, request) => {
      const lock = await driver.lock(path, request);
      return { ...lock, [Symbol.asyncDispose]: async () => {} };
    }),
  },
  {
    name: 'let go by name, whoever holds it',
    killedBy: 'lock/is-over-once',
    driver: (driver) => {
      const held = new Map<string, StorageLock>();
      return {
        ...driver,
        lock: async (path, request) => {
          const lock = await driver.lock(path, request);
          held.set(path, lock);
          const letGo = async (): Promise<void> => held.get(path)?.[Symbol.asyncDispose]();
          return { ...lock, [Symbol.asyncDispose]: letGo };
        },
      };
    },
  },
  {
    name: 'a refused one stays half held',
    killedBy: 'lock/refused-leaves-nothing',
    ...locking(async (driver, path, request) => {
      try {
        return await driver.lock(path, request);
      } catch (cause) {
        await driver.lock(path, { takes: [], forbids: ['resize'] });
        throw cause;
      }
    }),
  },
  {
    name: 'ends when the file is closed, as fcntl F_SETLK does',
    killedBy: 'lock/outlives-other-opens',
    driver: (driver) => {
      const held = new Map<string, StorageLock[]>();
      return {
        ...driver,
        lock: async (path, request) => {
          const lock = await driver.lock(path, request);
          held.set(path, [...(held.get(path) ?? []), lock]);
          return lock;
        },
        open: async (path, mode) => {
          for (const lock of held.get(path) ?? []) await lock[Symbol.asyncDispose]();
          return driver.open(path, mode);
        },
      };
    },
  },
  {
    name: 'of a name',
    killedBy: 'lock/goes-with-the-file',
    ...keyed((path) => path),
  },
  {
    name: 'of a name with its links not followed',
    killedBy: 'lock/is-of-the-file-by-any-name',
    ...keyed((path) => path),
  },
  {
    name: 'change does nothing',
    killedBy: 'lock/changes-while-it-is-held',
    ...locking(async (driver, path, request) => ({
      ...(await driver.lock(path, request)),
      change: async () => {},
    })),
  },
  {
    name: 'change only adds',
    killedBy: 'lock/changes-while-it-is-held',
    ...locking(async (driver, path, request) => {
      const lock = await driver.lock(path, request);
      const change = ({ takes, forbids }: LockRequest): Promise<void> =>
        lock.change({
          takes: [...new Set([...request.takes, ...takes])],
          forbids: [...new Set([...request.forbids, ...forbids])],
        });
      return { ...lock, change };
    }),
  },
  {
    name: 'a change that is refused leaves nothing held',
    killedBy: 'lock/stays-when-a-change-is-refused',
    ...locking(async (driver, path, request) => {
      const lock = await driver.lock(path, request);
      const change = async (next: LockRequest): Promise<void> => {
        await lock.change({ takes: [], forbids: [] });
        await lock.change(next);
      };
      return { ...lock, change };
    }),
  },
  {
    name: 'a change that is refused stays half made',
    killedBy: 'lock/stays-when-a-change-is-refused',
    ...locking(async (driver, path, request) => {
      const lock = await driver.lock(path, request);
      const change = async (next: LockRequest): Promise<void> => {
        await lock.change({ takes: next.takes, forbids: request.forbids });
        await lock.change(next);
      };
      return { ...lock, change };
    }),
  },
  {
    name: 'a missing file is made to be locked',
    killedBy: 'lock/needs-a-file',
    ...locking(async (driver, path, request) => {
      const made = await driver.create(path, { secret: false }).catch(() => null);
      await made?.[Symbol.asyncDispose]();
      return driver.lock(path, request);
    }),
  },
];
