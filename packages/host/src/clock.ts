import { setTimeout as sleep } from 'node:timers/promises';
import type { Clock } from '@downfold/commit';

/** The time of this machine. */
export const clock: Clock = {
  now: () => {
    const [seconds, nanoseconds] = process.hrtime();
    return seconds * 1e3 + nanoseconds / 1e6;
  },
  sleep: async (milliseconds, signal) => {
    await sleep(milliseconds, undefined, signal === undefined ? {} : { signal }).catch(
      (cause: unknown) => {
        signal?.throwIfAborted();
        throw cause;
      },
    );
  },
  date: () => new Date().toISOString(),
};
