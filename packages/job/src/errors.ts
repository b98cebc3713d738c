import { DownfoldError } from '@downfold/units';

/**
 * Why something asked of a job was refused. `message` is what QEMU says.
 * - `JOB_NOT_FOUND`: there is no job of that id.
 * - `JOB_EXISTS`: the id is taken.
 * - `JOB_BAD_ID`: not a letter followed by letters, digits, `-`, `.` and `_`.
 * - `JOB_WRONG_STATE`: the state does not take the verb.
 * - `JOB_REFUSED`: the state does, but not now: paused twice, resumed without a pause, nothing to complete.
 * - `JOB_BAD_SPEED`: a negative speed.
 */
export type JobErrorCode =
  | 'JOB_NOT_FOUND'
  | 'JOB_EXISTS'
  | 'JOB_BAD_ID'
  | 'JOB_WRONG_STATE'
  | 'JOB_REFUSED'
  | 'JOB_BAD_SPEED';

/** A refusal. Nothing changed. */
export class JobError extends DownfoldError<JobErrorCode> {
  override readonly name: string = 'JobError';
}
