import { parentPort } from 'node:worker_threads';
import type { Assignment, FromThread, Ready } from './messages.ts';
import { makeRooms } from './rooms.ts';
import { Serving } from './serving.ts';
import { loadSystem } from './system.ts';

const system = loadSystem();
if (system === null) throw new Error('koffi is not there any more');
const bell = system.eventfd();
if (bell < 0) throw new Error(`eventfd failed with errno ${-bell}`);
const thread = { system, bell, rooms: makeRooms(system) };

/** Serves one connection after another; between them it waits for the next. */
parentPort?.on('message', (assignment: Assignment) => {
  const { port } = assignment;
  // what this throws ends the thread, and that is heard
  const over: FromThread = { over: true, error: new Serving(thread, assignment).run() };
  port.postMessage(over);
});
const ready: Ready = { bell };
parentPort?.postMessage(ready);
