import type { JobState } from './states.ts';

/** How a user asked a ready job to end. */
export type Ending = 'complete' | 'cancel';

/** What a job's work may ask of its job. */
export interface JobControl {
  /** Aborted when the job is cancelled by force. Work that rejects with the signal's reason was cancelled, not failed. */
  readonly signal: AbortSignal;
  readonly state: JobState;
  /** Bytes that are to be moved at once, at most: what 50 ms of the speed allow, 0 while the job is paused; Infinity: no limit. */
  readonly atOnce: number;
  /** Resolves when `bytes` more may be moved: not while the job is paused, and no faster than its speed. Rejects with the signal's reason. */
  pass(bytes: number): Promise<void>;
  /** How far the work is, of how much; bytes. */
  progress(done: number, total: number): void;
  /**
   * A read or write failed, and can be tried again. Does what the user's `on-error` says and tells it: `again` (after a while, or a pause that
   * the user ended) or `give up`: the work shall reject with what failed.
   */
  failed(
    operation: 'read' | 'write',
    cause: { readonly noSpace: boolean },
  ): Promise<'again' | 'give up'>;
  /** Source and target agree from here on. From now on the user decides when the job ends. */
  ready(): void;
  /** How the user wants a ready job to end; null: not yet. */
  readonly ending: Ending | null;
  /** Resolves with it. Rejects with the signal's reason. */
  ended(): Promise<Ending>;
}

/** What a job does. Each is called once at most; what it rejects with is the job's error. */
export interface JobWork {
  /** Moves data until all is in place or, after `ready`, until the user ended it. */
  run(control: JobControl): Promise<void>;
  /** The part that others see: links are switched. Before it a cancellation leaves everything as it was for them. */
  finish(ending: Ending): Promise<void>;
  /** After a failure or a cancellation; must not fail. Resolves with what became of it, for those who read the job's error; null: nothing to say. */
  giveUp(): Promise<string | null>;
}
