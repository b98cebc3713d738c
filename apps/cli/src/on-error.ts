import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { printable } from '@downfold/chain';
import type { Failure, RunOptions } from '@downfold/commit';
import { printError } from './output/print.ts';

/** What `--on-error` can say: QEMU's words, and `retry`. */
export const ON_ERROR = ['report', 'stop', 'retry'] as const;
export type OnError = (typeof ON_ERROR)[number];

const FIRST_WAIT_MILLISECONDS = 1000;
const LONGEST_WAIT_MILLISECONDS = 30_000;

/**
 * What happens after a failed read or write, when the job stands at a consistent point. `report`: it ends. `stop`: it waits until the
 * user has mended what was wrong (Enter on a terminal, or SIGCONT). `retry`: it tries again by itself, less and less often.
 */
export function failureHandler(
  onError: OnError,
  signal: AbortSignal,
): NonNullable<RunOptions['onFailure']> {
  if (onError === 'report') return async () => false;
  let wait = FIRST_WAIT_MILLISECONDS;
  return async (failure) => {
    try {
      if (onError === 'stop') {
        // listens before it says so: a script may answer at once
        const mended = word(signal);
        tell(failure, 'paused; mend it, then press Enter or send SIGCONT, or leave it with Ctrl-C');
        await mended;
      } else {
        tell(failure, `trying again in ${wait / 1000} s; Ctrl-C leaves it`);
        await sleep(wait, undefined, { signal });
        wait = Math.min(LONGEST_WAIT_MILLISECONDS, 2 * wait);
      }
      return true;
    } catch (cause) {
      // the job ends where it stands, with what it failed of
      if (signal.aborted) return false;
      throw cause;
    }
  };
}

function tell({ error }: Failure, next: string): void {
  printError(`\ndownfold: ${printable(error.message)}; ${next}`);
}

/** Waits for the user's word: a line on the terminal, or SIGCONT. Rejects when `signal` is aborted. */
async function word(signal: AbortSignal): Promise<void> {
  const heard = new AbortController();
  const either = AbortSignal.any([signal, heard.signal]);
  // keeps the process alive where there is neither a terminal nor anything else to wait for
  const alive = setInterval(() => {}, LONGEST_WAIT_MILLISECONDS);
  const words = [once(process, 'SIGCONT', { signal: either })];
  if (process.stdin.isTTY) words.push(once(process.stdin.resume(), 'data', { signal: either }));
  try {
    await Promise.race(words);
  } finally {
    clearInterval(alive);
    heard.abort();
    process.stdin.pause();
    await Promise.allSettled(words);
  }
}
