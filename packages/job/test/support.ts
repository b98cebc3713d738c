import type { Clock } from '@downfold/commit';
import {
  Job,
  type JobControl,
  type JobEvent,
  type JobOptions,
  type JobWork,
} from '../src/index.ts';

/** A clock that sleeping moves. */
export function clockOf(): Clock & { readonly slept: number } {
  let slept = 0;
  return {
    get slept() {
      return slept;
    },
    now: () => slept,
    sleep: async (milliseconds, signal) => {
      await Promise.resolve();
      signal?.throwIfAborted();
      slept += milliseconds;
    },
    date: () => '2026-01-01T00:00:00.000Z',
  };
}

/** Lets everything that can go on go on. */
export function settled(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

const MIB = 1 << 20;

/** A job whose work moves a MiB whenever it is told to, and what came of it. */
export class Trial {
  readonly events: string[] = [];
  readonly said: JobEvent[] = [];
  /** What became of the work, in order. */
  readonly done: string[] = [];
  readonly job: Job;
  control: JobControl | null = null;
  readonly #steps: (() => void)[] = [];
  readonly #pieces: number;

  constructor(
    options: Partial<JobOptions> = {},
    {
      pieces = 3,
      active = false,
      work = {},
    }: { pieces?: number; active?: boolean; work?: Partial<JobWork> } = {},
  ) {
    this.#pieces = pieces;
    this.job = new Job(
      {
        run: async (control) => {
          this.control = control;
          for (let piece = 1; piece <= pieces; piece++) {
            await new Promise<void>((resolve, reject) => {
              this.#steps.push(resolve);
              control.signal.addEventListener('abort', () => reject(control.signal.reason));
            });
            await control.pass(MIB);
            control.progress(piece * MIB, pieces * MIB);
          }
          if (!active) return;
          control.ready();
          this.done.push(await control.ended());
        },
        finish: async (ending) => void this.done.push(`finish ${ending}`),
        giveUp: async () => {
          this.done.push('give up');
          return null;
        },
        ...work,
      },
      {
        id: 'c0',
        type: 'commit',
        clock: clockOf(),
        emit: (event) => {
          this.said.push(event);
          this.events.push(event.event === 'JOB_STATUS_CHANGE' ? event.data.status : event.event);
        },
        ...options,
      },
    );
  }

  /** Lets so many pieces go through; default all. */
  async go(pieces: number = this.#pieces): Promise<void> {
    for (let piece = 0; piece < pieces; piece++) {
      await settled();
      this.#steps.shift()?.();
    }
    await settled();
  }
}
