import { hostOffset } from '@downfold/units';
import type { FileRun } from '../../src/index.ts';
import { bytesTo, NOTHING_MORE } from '../../src/index.ts';
import { withFiles } from '../support.ts';
import type { Mutant } from './mutant.ts';

/** Runs that are told wrong. */
export const runMutants: readonly Mutant[] = [
  {
    name: 'a run of bytes begins with a page of hole',
    killedBy: 'runs/bytes-are-in-no-hole',
    driver: (driver) =>
      withFiles(driver, (file) => ({
        runAt: async (offset) => {
          const run = await file.runAt(offset);
          if (run.hole || offset % 8192 !== 0) return run;
          return { hole: true, end: hostOffset(Math.min(offset + 4096, run.end)) };
        },
      })),
  },
  {
    name: 'what was asked for once is remembered',
    killedBy: 'runs/a-write-fills-a-hole-at-once',
    driver: (driver) =>
      withFiles(driver, (file) => {
        const known = new Map<number, FileRun>();
        return {
          runAt: async (offset) => {
            const run = known.get(offset) ?? (await file.runAt(offset));
            known.set(offset, run);
            return run;
          },
        };
      }),
  },
  {
    name: 'only whole blocks hold bytes',
    killedBy: 'runs/the-last-byte-is-in-no-hole',
    driver: (driver) =>
      withFiles(driver, (file) => ({
        runAt: async (offset) => {
          const length = await file.length();
          return offset < length - (length % 4096) ? file.runAt(offset) : NOTHING_MORE;
        },
      })),
  },
  {
    name: 'bytes never end',
    killedBy: 'runs/past-the-end-is-a-hole',
    driver: (driver) =>
      withFiles(driver, () => ({
        runAt: async (offset) => ({ hole: false, end: hostOffset(offset + 4096) }),
      })),
  },
  {
    name: 'no holes are known',
    killedBy: 'runs/holes-are-found',
    driver: (driver) =>
      withFiles(driver, (file) => ({
        runAt: async (offset) => bytesTo(await file.length(), offset),
      })),
  },
  {
    name: 'what was discarded is no hole',
    killedBy: 'runs/discarded-is-a-hole',
    driver: (driver) =>
      withFiles(driver, (file) => {
        let discarded = false;
        return {
          discard: async (range) => {
            discarded = true;
            await file.discard(range);
          },
          runAt: async (offset) =>
            discarded ? bytesTo(await file.length(), offset) : file.runAt(offset),
        };
      }),
  },
];
