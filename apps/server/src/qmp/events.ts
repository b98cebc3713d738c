import type { ErrorAction, JobFigures, JobState, JobType } from '@downfold/job';
import { type Event, event, oneOf, str, struct } from '@downfold/qmp';
import { jobCompleted, jobFigures, jobPending, jobStatusChange } from './schema/jobs.ts';

/** What is told of without being asked. */
export interface ServerEvents extends Record<string, Event> {
  readonly JOB_STATUS_CHANGE: Event<{ readonly id: string; readonly status: JobState }>;
  readonly BLOCK_JOB_READY: Event<JobFigures>;
  readonly BLOCK_JOB_COMPLETED: Event<JobFigures & { readonly error?: string }>;
  readonly BLOCK_JOB_CANCELLED: Event<JobFigures>;
  readonly BLOCK_JOB_PENDING: Event<{ readonly type: JobType; readonly id: string }>;
  readonly BLOCK_JOB_ERROR: Event<{
    readonly device: string;
    readonly operation: 'read' | 'write';
    readonly action: ErrorAction;
  }>;
  readonly BLOCK_EXPORT_DELETED: Event<{ readonly id: string }>;
}

/** Events, with QEMU's names and members. */
export const events: ServerEvents = {
  JOB_STATUS_CHANGE: event({ about: 'A job is in another state.', data: jobStatusChange }),
  BLOCK_JOB_READY: event({
    about: 'A job only waits to be completed, or cancelled.',
    data: jobFigures,
  }),
  BLOCK_JOB_COMPLETED: event({
    about: 'A job is over. With `error` it failed.',
    data: jobCompleted,
  }),
  BLOCK_JOB_CANCELLED: event({ about: 'A job was cancelled.', data: jobFigures }),
  BLOCK_JOB_PENDING: event({
    about: 'A job without `auto-finalize` waits for `job-finalize`.',
    data: jobPending,
  }),
  BLOCK_JOB_ERROR: event({
    about: 'A read or write of a job failed; `action` says what was done about it.',
    data: struct({
      device: str,
      operation: oneOf(['read', 'write'], 'IoOperationType'),
      action: oneOf(['ignore', 'report', 'stop'], 'BlockErrorAction'),
    }),
  }),
  BLOCK_EXPORT_DELETED: event({ about: 'An export is gone.', data: struct({ id: str }) }),
};
