import type { BlockJobInfo, JobFigures, JobInfo, JobState, JobType, OnError } from '@downfold/job';
import {
  about,
  bool,
  deprecated,
  int,
  oneOf,
  optional,
  str,
  struct,
  type Type,
} from '@downfold/qmp';

/** Members of every command that starts a job. */
export interface JobMembers extends StartMembers {
  readonly device: string;
  readonly 'backing-file'?: string;
  readonly 'x-plan'?: boolean;
}

/** How a job is started, whatever it does. */
export interface StartMembers {
  readonly 'job-id'?: string;
  readonly speed?: number;
  readonly 'on-error'?: OnError;
  readonly 'filter-node-name'?: string;
  readonly 'auto-finalize'?: boolean;
  readonly 'auto-dismiss'?: boolean;
}

const started = {
  speed: about('bytes a second; 0, the default: no limit', optional(int)),
  'on-error': about(
    'a failed read or write: end (`report`, the default), pause (`stop`), try again after a while (`ignore`), pause when there is no space (`enospc`, `auto`)',
    optional(oneOf(['report', 'ignore', 'enospc', 'stop', 'auto'], 'BlockdevOnError')),
  ),
  'filter-node-name': about(
    'a node of this name stands for the job while it works, with the driver that QEMU has for it; it cannot be used for anything',
    optional(str),
  ),
  'auto-finalize': about(
    'false: wait in `pending` for `job-finalize` before others see a change; default true',
    optional(bool),
  ),
  'auto-dismiss': about(
    'false: stay in `concluded` until `job-dismiss`; default true',
    optional(bool),
  ),
};

const plan = about('tells the plan, and does nothing; default false', optional(bool));

const named = {
  'job-id': about('default: `device`', optional(str)),
  device: about('the active layer of the disk', str),
};

const backingFile = (whose: string) =>
  about(
    `what ${whose} is to call its backing file; not checked, as in QEMU; default: as it called the last one, by a relative or an absolute path`,
    optional(str),
  );

/** Arguments of `block-commit`. */
export interface CommitArguments extends JobMembers {
  readonly 'base-node'?: string;
  readonly base?: string;
  readonly 'top-node'?: string;
  readonly top?: string;
  readonly 'backing-mask-protocol'?: boolean;
  readonly 'x-strategy'?: string;
  readonly 'x-siblings'?: 'refuse' | 'invalidate' | 'keep';
  readonly 'x-ignore-unreadable'?: boolean;
}

export const commitArguments: Type<CommitArguments> = struct({
  ...named,
  'base-node': about('receives the data; default: the lowest layer', optional(str)),
  base: about('the same by its file', deprecated(optional(str))),
  'top-node': about('the uppermost layer that is committed; default: `device`', optional(str)),
  top: about('the same by its file', deprecated(optional(str))),
  'backing-file': backingFile("top's overlay"),
  'backing-mask-protocol': about(
    'taken for the sake of clients: formats are always written by their own name',
    optional(bool),
  ),
  ...started,
  'x-plan': plan,
  'x-strategy': about(
    'how: `copy-down` (the default), `depth-first`, `preserve`, `staged`, `auto`; an active layer is always committed by `active`',
    optional(str),
  ),
  'x-siblings': about(
    'images outside the chain that would read something else: refuse (the default), accept it and mark them, or keep what they read',
    optional(oneOf(['refuse', 'invalidate', 'keep'])),
  ),
  'x-ignore-unreadable': about(
    'goes on although images in the same directories cannot be read, and may depend on what changes; default false',
    optional(bool),
  ),
});

/** Arguments of `block-stream`. */
export interface StreamArguments extends JobMembers {
  readonly 'base-node'?: string;
  readonly base?: string;
  readonly bottom?: string;
  readonly 'backing-mask-protocol'?: boolean;
  readonly 'x-strategy'?: string;
}

export const streamArguments: Type<StreamArguments> = struct({
  'job-id': named['job-id'],
  device: about('the layer that receives data, by its node; often the active one', str),
  base: about('the same as `base-node`, by its file', deprecated(optional(str))),
  'base-node': about(
    'the layer on which `device` shall stand; default: on none, and it holds everything itself',
    optional(str),
  ),
  bottom: about('instead of a base: the lowest layer whose data is taken', optional(str)),
  'backing-file': backingFile('`device`'),
  'backing-mask-protocol': about('as for block-commit', optional(bool)),
  ...started,
  'x-plan': plan,
  'x-strategy': about('how; there is `stream`', optional(str)),
});

/** Arguments of `x-journal-resume`. */
export interface JournalResume extends StartMembers {
  readonly image: string;
}

/** What names an interrupted job. */
const image = about('the node, or the file, beside which the journal lies', str);

export const journalResume: Type<JournalResume> = struct({
  image,
  'job-id': about('default: `resume-` and the start of the id in the journal', optional(str)),
  ...started,
});

export const journalAbort: Type<{ readonly image: string }> = struct({ image });

/** An interrupted job. */
export interface JournalInfo {
  readonly image: string;
  readonly 'node-name'?: string;
  readonly job: string;
  readonly operation: string;
  readonly strategy: string;
  readonly copied: number;
  readonly pivoted?: string;
}

export const journalInfo: Type<JournalInfo> = struct(
  {
    image: about('the file beside which the journal lies', str),
    'node-name': about('its node; absent: it is none of a disk any more', optional(str)),
    job: about('as marks and messages name it', str),
    operation: oneOf(['commit', 'stream', 'rebase']),
    strategy: str,
    copied: about('bytes that are copied, and durable', int),
    pivoted: about(
      'file of the image that is the disk since; only marks are missing',
      optional(str),
    ),
  },
  'XJournalInfo',
);

const status: Type<JobState> = oneOf(
  [
    'created',
    'running',
    'paused',
    'ready',
    'standby',
    'waiting',
    'pending',
    'aborting',
    'concluded',
    'null',
  ],
  'JobStatus',
);

const type: Type<JobType> = oneOf(['commit', 'stream'], 'JobType');

export const jobInfo: Type<JobInfo> = struct(
  {
    id: str,
    type,
    status,
    'current-progress': about('bytes', int),
    'total-progress': about('bytes to be moved', int),
    error: optional(str),
  },
  'JobInfo',
);

/** Members that tell of a block job wherever one is told of. */
const figures = {
  type,
  device: about('the id of the job', str),
  len: about('bytes to be moved', int),
  offset: about('bytes', int),
  speed: int,
};

export const blockJobInfo: Type<BlockJobInfo> = struct(
  {
    ...figures,
    busy: bool,
    paused: bool,
    ready: bool,
    status,
    'io-status': oneOf(['ok', 'failed', 'nospace'], 'BlockDeviceIoStatus'),
    'auto-finalize': bool,
    'auto-dismiss': bool,
    error: optional(str),
  },
  'BlockJobInfo',
);

/** What an event of a job carries. */
export const jobFigures: Type<JobFigures> = struct(figures);

/** The same of one that is over. */
export const jobCompleted: Type<JobFigures & { readonly error?: string }> = struct({
  ...figures,
  error: optional(str),
});

export const jobStatusChange: Type<{ readonly id: string; readonly status: JobState }> = struct({
  id: str,
  status,
});

export const jobPending: Type<{ readonly type: JobType; readonly id: string }> = struct({
  type,
  id: str,
});
