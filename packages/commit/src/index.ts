export { type ExtentBatch, ExtentCursor, isZeroKind, KIND } from '@downfold/image';
export type { AbortResult } from './abort.ts';
export type { BitmapFate, BitmapsMode } from './bitmap-fate.ts';
export { type Claim, claimOf, conflictBetween } from './claim.ts';
export { type AbortOptions, createEngine, type Engine, type JournalSummary } from './engine.ts';
export { CommitError, type CommitErrorCode } from './errors.ts';
export { type JournalOwner, type JournalRecord, journalPath, parseJournal } from './journal.ts';
export { assertNoJournal, assertNoStaging } from './journals.ts';
export type {
  ActiveEnding,
  ConvergeOptions,
  GuestLatency,
  LiveDisk,
  LiveMirror,
  LiveSection,
  SectionReport,
  SectionTimes,
} from './live.ts';
export type { CommitResult, EngineParts, Failure, RunOptions } from './parts.ts';
export {
  type Candidate,
  type CaseBytes,
  type CommitPlan,
  type CommitRequest,
  type Dependent,
  factsIn,
  type ImageCost,
  type Invalidation,
  type Operation,
  type Relink,
  type Unreadable,
} from './plan.ts';
export {
  commitPlan,
  commonCosts,
  emptiedCost,
  headerCost,
  type PlanFacts,
  type PlanParts,
  planFacts,
  relinkTo,
  writeCost,
  writesBase,
} from './plan-facts.ts';
export type { PlanOptions, PlanRequest } from './plan-request.ts';
export { type Clock, type Progress, Throttle } from './progress.ts';
export type { Cursor, Step } from './step.ts';
export type { ChainView, CommitStrategy, NodeExtent } from './strategy.ts';
