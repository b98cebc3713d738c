import type { JobState } from './states.ts';

/** What a job does: `commit` is also an active one. */
export type JobType = 'commit' | 'stream';

/** How far a job is; bytes. `speed`: the limit, bytes a second, 0: none. */
export interface JobFigures {
  readonly type: JobType;
  readonly device: string;
  readonly len: number;
  readonly offset: number;
  readonly speed: number;
}

/** What was done about a failed read or write. */
export type ErrorAction = 'report' | 'stop' | 'ignore';

/** What is told of a job, with QEMU's names; `data` as it goes over QMP. */
export type JobEvent =
  | {
      readonly event: 'JOB_STATUS_CHANGE';
      readonly data: { readonly id: string; readonly status: JobState };
    }
  | { readonly event: 'BLOCK_JOB_READY' | 'BLOCK_JOB_CANCELLED'; readonly data: JobFigures }
  | {
      readonly event: 'BLOCK_JOB_COMPLETED';
      readonly data: JobFigures & { readonly error?: string };
    }
  | {
      readonly event: 'BLOCK_JOB_PENDING';
      readonly data: { readonly type: JobType; readonly id: string };
    }
  | {
      readonly event: 'BLOCK_JOB_ERROR';
      readonly data: {
        readonly device: string;
        readonly operation: 'read' | 'write';
        readonly action: ErrorAction;
      };
    };
