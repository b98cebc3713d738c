import { createEngine, type Engine } from '@downfold/commit';
import { clock, isAlive, newJobId, thisProcess } from '@downfold/host';
import { auto, copyDown, depthFirst, preserve, rebase, staged, stream } from '@downfold/strategies';
import { type Access, backend, formats, policyFor } from './environment.ts';

/** What `auto` chooses from; of equals the first. */
const COMMITTING = [copyDown, depthFirst, staged, preserve] as const;

/** The engine of the command line, with everything named that it may use. */
export function engineFor(file: string, access: Access): Engine {
  return createEngine({
    backend,
    formats,
    strategies: [...COMMITTING, auto(COMMITTING), stream, rebase],
    policy: policyFor([file], access),
    owner: thisProcess(),
    isAlive,
    newJobId,
    clock,
  });
}
