import { commitByCli } from './commit-by-cli.ts';
import { commitInProcess } from './commit-in-process.ts';
import type { Committer } from './trial.ts';

/** How the chain of a seed is committed: every tenth by the built command line, the others by the engine in this process. */
export function committerOf(seed: number): Committer {
  return seed % 10 === 0 ? commitByCli : commitInProcess;
}
