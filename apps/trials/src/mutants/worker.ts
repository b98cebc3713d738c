// A thread that tries mutants; see tools/fleet.ts.
import { serveTasks } from '../tools/fleet.ts';
import { tryTask } from './trial.ts';

serveTasks(tryTask, ({ first, at }) => `mutant ${Atomics.load(at, 0)} (from ${first})`);
