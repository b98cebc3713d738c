import { defaultPolicy } from '@downfold/chain';
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
    // jobs keep to the sizes that they were tried with
    policy: { ...policyFor([file], access), limits: defaultPolicy.limits },
    owner: thisProcess(),
    isAlive,
    newJobId,
    clock,
  });
}
