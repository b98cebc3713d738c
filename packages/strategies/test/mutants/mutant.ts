import type { CommitStrategy } from '@downfold/commit';
import type { RuleId } from '@downfold/commit/compliance';

/** A strategy that is broken on purpose, and the case of the kit that must say so. */
export interface Mutant {
  readonly name: string;
  readonly strategy: CommitStrategy;
  readonly killedBy: RuleId;
}
