import { setTimeout as sleep } from 'node:timers/promises';
import type { Clock } from '@downfold/commit';

/** The time of this machine. */
export const clock: Clock = {
  now: () => performance.now(),
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
