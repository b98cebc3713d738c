// A thread that tries one task after the other; see tools/fleet.ts.
import { serveTasks } from '../tools/fleet.ts';
import { tryTask } from './trial.ts';

serveTasks(tryTask, ({ strategy, seed }) => `${strategy}, seed ${seed}`);
