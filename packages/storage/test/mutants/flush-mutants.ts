import { byteLength } from '@downfold/units';
import { forwarding, withFiles, withStorages } from '../support.ts';
import type { Mutant } from './mutant.ts';

/** Barriers that are none. */
export const flushMutants: readonly Mutant[] = [
  {
    name: 'a flush fails once and then succeeds',
    killedBy: 'flush/failure-is-final',
    backend: (backend) => ({
      ...backend,
      create: async (path, options) => {
        let storage = await backend.create(path, options);
        return {
          ...forwarding(() => storage),
          flush: async (barrier) => {
            const before = storage;
            storage = await backend.open(path, 'write');
            await before.flush(barrier);
          },
        };
      },
    }),
  },
  {
    name: 'a flush beside a failed one succeeds',
    killedBy: 'flush/failure-reaches-all-under-way',
    backend: (backend) =>
      withStorages(backend, (storage) => ({
        flush: async (barrier) => {
          if (!barrier.includes('second')) await storage.flush(barrier);
        },
      })),
  },
  {
    name: 'a flush throws away what it should keep',
    killedBy: 'flush/keeps-what-was-written',
    driver: (driver) =>
      withFiles(driver, (file) => ({ flush: () => file.setLength(byteLength(0)) })),
  },
  {
    name: 'only one flush at a time is let in',
    killedBy: 'concurrent/flushes',
    driver: (driver) =>
      withFiles(driver, (file) => {
        let busy = false;
        return {
          flush: async (barrier) => {
            if (busy) throw new Error('busy');
            busy = true;
            await file.flush(barrier);
            busy = false;
          },
        };
      }),
  },
  {
    name: 'a missing directory is flushed',
    killedBy: 'flush/of-a-missing-directory-is-refused',
    driver: (driver) => ({
      ...driver,
      flushDirectory: (path, barrier) => driver.flushDirectory(path, barrier).catch(() => {}),
    }),
  },
  {
    name: 'flush does nothing',
    killedBy: 'power-cut/flushed-bytes-survive',
    driver: (driver) => withFiles(driver, () => ({ flush: async () => {} })),
  },
  {
    name: 'flushDirectory does nothing',
    killedBy: 'power-cut/flushed-names-survive',
    driver: (driver) => ({ ...driver, flushDirectory: async () => {} }),
  },
];
