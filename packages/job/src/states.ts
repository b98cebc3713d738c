/** Where a job stands; QEMU's words. `null` is gone: nobody sees a job in it, it is only told of. */
export type JobState =
  | 'created'
  | 'running'
  | 'paused'
  | 'ready'
  | 'standby'
  | 'waiting'
  | 'pending'
  | 'aborting'
  | 'concluded'
  | 'null';

/** What a user may ask of a job. */
export type JobVerb =
  | 'cancel'
  | 'pause'
  | 'resume'
  | 'set-speed'
  | 'complete'
  | 'finalize'
  | 'dismiss';

/** Where each state may lead. Source: QEMU's `JobSTT` (job.c); facts on QEMU, 2.6. */
export const NEXT: Readonly<Record<JobState, readonly JobState[]>> = {
  created: ['running', 'aborting', 'null'],
  running: ['paused', 'ready', 'waiting', 'aborting'],
  paused: ['running'],
  ready: ['standby', 'waiting', 'aborting'],
  standby: ['ready'],
  waiting: ['pending', 'aborting'],
  pending: ['aborting', 'concluded'],
  aborting: ['aborting', 'concluded'],
  concluded: ['null'],
  null: [],
};

const MOVING: readonly JobState[] = ['created', 'running', 'paused', 'ready', 'standby'];

/** In which states each verb is taken. Source: QEMU's `JobVerbTable`. */
export const TAKEN: Readonly<Record<JobVerb, readonly JobState[]>> = {
  cancel: [...MOVING, 'waiting', 'pending'],
  pause: MOVING,
  resume: MOVING,
  'set-speed': MOVING,
  complete: ['ready', 'standby'],
  finalize: ['pending'],
  dismiss: ['concluded'],
};
