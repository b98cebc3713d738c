import { readFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import type { QmpEvent } from '@downfold/qmp';
import type { Draw } from '../tools/draw.ts';
import { JOB, type Kind, letsSnapshots, SPEEDS } from './jobs.ts';
import type { Life } from './life.ts';
import type { Snapshots } from './snapshots.ts';

/** Events and states that end a job. */
const HEARD = ['BLOCK_JOB_COMPLETED', 'null'] as const;
type Heard = (typeof HEARD)[number];
/** Records about which a reference, or the disk, is switched. */
const WRITTEN = ['SWITCH', 'PUBLISH', 'PIVOT'] as const;
type Written = (typeof WRITTEN)[number];

/** When a server is killed: so many milliseconds after something. */
export interface Moment {
  /** What the user did, what was heard, what the journal says; or requests were held for a switch, and go on. */
  readonly after: 'start' | 'snapshot' | 'ready' | 'complete' | 'held' | Heard | Written;
  readonly milliseconds: number;
}

/** Longest that a job which is not slowed down takes, about; milliseconds. */
const WHOLE_JOB = 400;
/** Longest that a switch takes, about. */
const SWITCH = 12;

/** A random moment, often about the switch. */
export function anyMoment(kind: Kind, from: Draw): Moment {
  const at = (after: Moment['after'], most: number): Moment => ({
    after,
    milliseconds: from.integer(most * 10) / 10,
  });
  const choice = from.integer(10);
  if (choice < 1) return at(from.pick(HEARD), SWITCH);
  if (choice < 3) return at('held', 3 * SWITCH);
  if (kind === 'active') {
    if (choice < 5) return at(choice < 4 ? 'start' : 'ready', WHOLE_JOB / 2);
    return choice < 8 ? at('complete', 8 * SWITCH) : at('PIVOT', SWITCH / 2);
  }
  if (choice < 5) return at('start', WHOLE_JOB);
  if (choice < 7 && letsSnapshots(kind)) return at('snapshot', SWITCH);
  return at(kind === 'staged' && choice < 8 ? 'PUBLISH' : 'SWITCH', SWITCH / 2);
}

/** How fast a job may be when it is to be killed at a moment, so that it is still there. */
export function speedUntil({ after }: Moment, from: Draw): number {
  return after === 'start' || after === 'snapshot' ? from.pick(SPEEDS) : 0;
}

/** A job that was started, and what its moment is looked for with. */
export interface Started {
  readonly life: Life;
  /** From before its start on. */
  readonly events: AsyncIterator<QmpEvent>;
  readonly journal: string;
  /** Characters that the server had said before. */
  readonly saidBefore: number;
  readonly snapshots: Snapshots;
  readonly from: Draw;
}

/** Resolves when the moment has come, and the job has been brought there. */
export async function comes({ after, milliseconds }: Moment, job: Started): Promise<void> {
  const { life, events, snapshots, from } = job;
  if (after === 'snapshot') {
    await sleep(from.integer(40));
    unanswered(life.snapshot(snapshots.next(), from));
  } else if (after === 'ready' || after === 'complete') {
    await heard(job, 'BLOCK_JOB_READY');
    if (after === 'complete') unanswered(life.served.execute('job-complete', { id: JOB }));
  } else if (after !== 'start') {
    const ended = heard(job, isOneOf(after, HEARD) ? after : 'null');
    if (after === 'held') await soon(ended, async () => isReported(job));
    else if (isOneOf(after, WRITTEN)) await soon(ended, () => isWritten(after, job.journal));
    else await ended;
    unanswered(ended);
  }
  unanswered(Promise.resolve(events.return?.()));
  await sleep(milliseconds);
}

/** What is under way when the server dies has no answer. */
function unanswered(work: Promise<unknown>): void {
  work.catch(() => undefined);
}

function isOneOf<T extends string>(word: string, words: readonly T[]): word is T {
  return (words as readonly string[]).includes(word);
}

/** Until an event, or a state; a job that gets ready on the way is completed. */
async function heard({ events, life }: Started, last: string): Promise<void> {
  for (;;) {
    const { value, done } = await events.next();
    if (done === true) throw new Error(`no ${last}`);
    const { status } = (value.data ?? {}) as { readonly status?: string };
    if (value.event === last || status === last) return;
    if (value.event === 'BLOCK_JOB_READY') await life.served.execute('job-complete', { id: JOB });
  }
}

/** Whether the server said that a switch is over. */
function isReported({ life, saidBefore }: Started): boolean {
  const { stderr } = life.served.server;
  return /(relink|publish|pivot): requests/.test(stderr.slice(saidBefore));
}

/** Whether a journal has such a record. */
export async function isWritten(type: Written, journal: string): Promise<boolean> {
  const text = await readFile(journal, 'utf8').catch(() => '');
  return text.includes(`"type":"${type}"`);
}

/** Until a condition holds, looked at all the time, or `ended` has settled. */
export async function soon(
  ended: Promise<unknown>,
  condition: () => Promise<boolean>,
): Promise<void> {
  let isOver = false;
  const over = (): void => {
    isOver = true;
  };
  ended.then(over, over);
  while (!isOver && !(await condition())) await sleep(0);
}
