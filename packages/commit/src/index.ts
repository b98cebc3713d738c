export {
  createEngine,
  type Engine,
  type JournalSummary,
  type PlanRequest,
} from './engine.ts';
export { CommitError, type CommitErrorCode } from './errors.ts';
export { type JournalOwner, type JournalRecord, journalPath, parseJournal } from './journal.ts';
export type { CommitResult, EngineParts, RunOptions } from './parts.ts';
export type { CaseBytes, CommitPlan, CommitRequest, Invalidation, Relink } from './plan.ts';
export { type PlanFacts, planFacts, writtenAtMost } from './plan-facts.ts';
export { type Clock, type Progress, Throttle } from './progress.ts';
export type { Cursor, Step } from './step.ts';
export type { ChainView, CommitStrategy } from './strategy.ts';
