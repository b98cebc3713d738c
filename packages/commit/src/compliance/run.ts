import type { Step } from '../step.ts';
import type { Disks, Write } from './disks.ts';
import type { ModelJournal } from './model-journal.ts';
import type { Pool } from './pool.ts';
import { SECTOR_BYTES } from './setting.ts';

/** Where a run begins, and how it came to that. */
export interface Start {
  readonly disks: Disks;
  readonly journal: ModelJournal;
  /** The crash before it; null: the job begins. */
  readonly crash: {
    readonly run: Run;
    /** Steps that were done. */
    readonly steps: number;
    readonly lost: readonly Write[];
  } | null;
  /** How many crashes lie before it. */
  readonly crashes: number;
  /** Bytes that were copied before it, durable or not, at most. */
  spent: number;
}

/** A run and the steps it has taken. */
export interface Run {
  readonly start: Start;
  readonly steps: Step[];
}

/** How a run came about and what it did, one line a step. */
export function storyOf(pool: Pool, { start, steps }: Run): string {
  const lines = steps.map((step) => `  ${stepText(step)}`);
  if (start.crash === null) return lines.join('\n');
  const { run, steps: done, lost } = start.crash;
  return [
    storyOf(pool, { start: run.start, steps: run.steps.slice(0, done) }),
    `  crash: ${lostText(pool, lost)}; resumed from ${JSON.stringify(start.journal.cursor)}`,
    ...lines,
  ].join('\n');
}

/** What a crash lost. */
export function lostText(pool: Pool, lost: readonly Write[]): string {
  if (lost.length === 0) return 'nothing written is lost';
  const texts = lost.map(
    ({ image, start, cells }) => `${pool.nodeOf(image)} [${start}, ${start + cells.length})`,
  );
  return `lost: ${texts.join(', ')}`;
}

function stepText(step: Step): string {
  if (!('range' in step)) return JSON.stringify(step);
  const { range, ...others } = step;
  const [start, end] = [range.offset, range.offset + range.length].map((at) => at / SECTOR_BYTES);
  return `[${start}, ${end}) ${JSON.stringify(others)}`;
}
