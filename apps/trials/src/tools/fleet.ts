import { once } from 'node:events';
import { availableParallelism } from 'node:os';
import { parentPort, Worker } from 'node:worker_threads';
import { FROM_SOURCE } from './from-source.ts';

/** Threads that try tasks. Closing ends them. */
export interface Fleet<Task, Outcome> extends AsyncDisposable {
  /** Tries what `next` gives, on all threads at once, until it gives null. @throws what a task failed with other than an outcome */
  run(next: () => Task | null, done: (outcome: Outcome) => void): Promise<void>;
}

/** What a thread answers. */
type Answer<Outcome> = { readonly outcome: Outcome } | { readonly failure: string };

/** Exploring makes short-lived disks by the thousand. */
const LIMITS = { maxYoungGenerationSizeMb: 64 };

/** Starts a thread for each processor. `worker`: a module that calls `serveTasks`. */
export function openFleet<Task, Outcome>(worker: URL): Fleet<Task, Outcome> {
  const threads = Array.from(
    { length: availableParallelism() },
    () => new Worker(worker, { execArgv: [...FROM_SOURCE], resourceLimits: LIMITS }),
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

async function keepBusy<Task, Outcome>(
  thread: Worker,
  next: () => Task | null,
  done: (outcome: Outcome) => void,
): Promise<void> {
  for (let task = next(); task !== null; task = next()) {
    thread.postMessage(task);
    const [answer] = (await once(thread, 'message')) as [Answer<Outcome>];
    if ('failure' in answer) throw new Error(answer.failure);
    done(answer.outcome);
  }
}

/** In a thread of a fleet: tries one task after the other. `nameOf`: what a failure says of its task. */
export function serveTasks<Task, Outcome>(
  tryTask: (task: Task) => Promise<Outcome>,
  nameOf: (task: Task) => string,
): void {
  const port = parentPort;
  if (port === null) throw new Error('runs in a worker thread only');
  port.on('message', (task: Task) => {
    void tryTask(task).then(
      (outcome) => port.postMessage({ outcome }),
      (cause: Error) => port.postMessage({ failure: `${nameOf(task)}: ${cause.stack}` }),
    );
  });
}
