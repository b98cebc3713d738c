export { CommitError, type CommitErrorCode } from './errors.ts';
export type { CaseBytes, CommitPlan, CommitRequest, Invalidation, Relink } from './plan.ts';
export type { Cursor, Step } from './step.ts';
export type { ChainView, CommitStrategy } from './strategy.ts';
