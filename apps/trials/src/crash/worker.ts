// A thread that tries one task after the other; see fleet.ts.
import { parentPort } from 'node:worker_threads';
import { type Task, tryTask } from './trial.ts';

const port = parentPort;
if (port === null) throw new Error('runs in a worker thread only');
port.on('message', (task: Task) => {
  void tryTask(task).then(
    (outcome) => port.postMessage({ outcome }),
    (cause: Error) =>
      port.postMessage({ failure: `${task.strategy}, seed ${task.seed}: ${cause.stack}` }),
  );
});
