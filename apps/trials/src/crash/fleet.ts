import { once } from 'node:events';
import { availableParallelism } from 'node:os';
import { Worker } from 'node:worker_threads';
import type { Outcome, Task } from './trial.ts';

/** Threads that try tasks. Closing ends them. */
export interface Fleet extends AsyncDisposable {
  /** Tries what `next` gives, on all threads at once, until it gives null. @throws what a task failed with other than a violation */
  run(next: () => Task | null, done: (outcome: Outcome) => void): Promise<void>;
}

/** What a thread answers. */
type Answer = { readonly outcome: Outcome } | { readonly failure: string };

const EXEC = ['--conditions=@downfold/source', '--disable-warning=ExperimentalWarning'];
/** Exploring makes short-lived disks by the thousand. */
const LIMITS = { maxYoungGenerationSizeMb: 64 };

/** Starts a thread for each processor. */
export function openFleet(): Fleet {
  const threads = Array.from(
    { length: availableParallelism() },
    () =>
      new Worker(new URL('./worker.ts', import.meta.url), {
        execArgv: EXEC,
        resourceLimits: LIMITS,
      }),
  );
  return {
    run: async (next, done) => {
      await Promise.all(threads.map((thread) => keepBusy(thread, next, done)));
    },
    [Symbol.asyncDispose]: async () => {
      for (const thread of threads) await thread.terminate();
    },
  };
}

async function keepBusy(
  thread: Worker,
  next: () => Task | null,
  done: (outcome: Outcome) => void,
): Promise<void> {
  for (let task = next(); task !== null; task = next()) {
    thread.postMessage(task);
    const [answer] = (await once(thread, 'message')) as [Answer];
    if ('failure' in answer) throw new Error(answer.failure);
    done(answer.outcome);
  }
}
