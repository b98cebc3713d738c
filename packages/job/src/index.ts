export { JobError, type JobErrorCode } from './errors.ts';
export type { ErrorAction, JobEvent, JobFigures, JobType } from './events.ts';
export { type BlockJobInfo, Job, type JobInfo, type JobOptions, type OnError } from './job.ts';
export { Jobs } from './jobs.ts';
export { type JobState, type JobVerb, NEXT, TAKEN } from './states.ts';
export type { Ending, JobControl, JobWork } from './work.ts';
