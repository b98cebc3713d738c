/**
 * I/O fault loops: the n-th operation of a kind fails, n = 1, 2, ... until none does, over the real engine on the scenarios of the
 * crash explorer. After each fault:
 * 1. the job rejects, with a typed error that names a file;
 * 2. every promise holds on the disk as it is (`crash/promises.ts`);
 * 3. once the fault is lifted the job is gone on with, or begun anew when nothing had begun, and ends right: content, links,
 *    marks, no leak, no journal;
 * 4. after a failed flush it is not gone on with on the same boot, unless the user says that the file system was mounted anew;
 * 5. a fault that strikes once, of anything but a flush, is overcome by `onFailure` alone.
 * Method: SQLite's I/O error loops.
 */

import { openBackend } from '@downfold/storage';
import {
  type FaultOperation,
  type FaultRule,
  type FaultyDriver,
  faulty,
} from '@downfold/storage/faults';
import {
  type MemoryDisk,
  memoryBackend,
  memoryBackendDriver,
  record,
} from '@downfold/storage-memory';
import { DownfoldError } from '@downfold/units';
import { type Case, engineOn, prepare } from '../crash/case.ts';
import { brokenEnd, brokenPromises } from '../crash/promises.ts';
import { recover } from '../crash/recover.ts';
import { type StrategyName, scenarioOf } from '../crash/scenario.ts';
import { type Draw, draw } from '../tools/draw.ts';

/** The operations that are made to fail. */
const OPERATIONS: readonly FaultOperation[] = [
  'open',
  'create',
  'remove',
  'rename',
  'flushDirectory',
  'facts',
  'length',
  'read',
  'write',
  'writeZeroes',
  'discard',
  'setLength',
  'flush',
];

/** What a number of faults showed. */
export interface FaultFigures {
  /** Faults that struck, by operation. */
  readonly faults: Partial<Record<FaultOperation, number>>;
  /** One line each, with what replays it. */
  readonly failures: string[];
}

const HOW = ['nothing', 'half', 'all'] as const;
const CODES = ['STORAGE_IO', 'STORAGE_NO_SPACE'] as const;

/** Every fault of every kind in the job of a seed; at most `most` of each kind of operation, spread over all of them. */
export async function faultsOf(
  strategy: StrategyName,
  seed: number,
  most: number,
): Promise<FaultFigures> {
  const figures: FaultFigures = { faults: {}, failures: [] };
  const one = await prepare(scenarioOf(strategy, seed));
  if (typeof one === 'string') return figures;
  const counts = await operationsOf(one);
  // what a job cannot do at all on these images is no fault
  if (counts === null) return figures;
  const random = draw(seed * 7 + 3);
  for (const operation of OPERATIONS) {
    const total = counts[operation] ?? 0;
    const step = Math.max(1, Math.floor(total / most));
    for (let nth = 1 + random.integer(step); nth <= total; nth += step) {
      const rule = ruleOf(random, operation, nth);
      const problems = await strike(one, rule);
      if (problems === null) continue;
      figures.faults[operation] = (figures.faults[operation] ?? 0) + 1;
      if (problems.length > 0)
        figures.failures.push(`${strategy} seed ${seed} ${JSON.stringify(rule)}: ${problems[0]}`);
    }
  }
  return figures;
}

/** Data may be written in part. Metadata is written by sectors, which are whole or not there. */
function ruleOf(random: Draw, operation: FaultOperation, nth: number): FaultRule {
  const done = random.pick(HOW);
  return {
    operation,
    ...(operation === 'write' && done === 'half' ? { name: 'data' } : {}),
    nth,
    times: random.chance(0.5) ? 1 : Number.POSITIVE_INFINITY,
    code: random.pick(CODES),
    done,
  };
}

/** A job on a disk of its own, whose operations can be made to fail once it is planned. */
interface Run {
  readonly disk: MemoryDisk;
  readonly driver: FaultyDriver;
}

function begin(one: Case): Run {
  const disk = one.disk.copy();
  return { disk, driver: faulty(memoryBackendDriver(disk)) };
}

/** How often each operation occurs in the job. Null: the job fails by itself, with a typed error. */
async function operationsOf(one: Case): Promise<FaultyDriver['counts'] | null> {
  const { driver } = begin(one);
  try {
    await engineOn(openBackend(driver), 1).run(one.plan, one.options);
    return driver.counts;
  } catch (cause) {
    if (cause instanceof DownfoldError && cause.code === 'IMAGE_UNSUPPORTED') return null;
    throw cause;
  }
}

/** One fault, all that comes of it, and what is wrong with that; null: it did not strike. */
async function strike(one: Case, rule: FaultRule): Promise<readonly string[] | null> {
  const run = begin(one);
  run.driver.inject(rule);
  const engine = engineOn(openBackend(run.driver), 1);
  const error = await failureOf(engine.run(one.plan, one.options));
  if (run.driver.fired.length === 0) return error === null ? null : [`failed by itself: ${error}`];
  // a name that is gone although the answer was lost need not be removed again
  if (error === null && rule.operation === 'remove' && rule.done === 'all')
    return brokenEnd(one, run.disk);
  const broken = await brokenPromises(one, run.disk);
  const problems = [
    ...judgeError(run, error),
    // half a sector of base, which is a mixture anyway, is no content that anybody wrote
    ...broken.filter((problem) => rule.done !== 'half' || !problem.includes(' (base) ')),
  ];
  if (problems.length > 0) return problems;
  const stuck = await failedFlush(one, run, error);
  if (stuck.length > 0) return stuck;
  const { problems: after } = await recover(one, record(run.disk), { boot: 2, givenUp: false });
  if (after.length > 0) return after.map((problem) => `after the fault was lifted: ${problem}`);
  return passing(one, rule);
}

async function failureOf(work: Promise<unknown>): Promise<unknown> {
  try {
    await work;
    return null;
  } catch (cause) {
    return cause;
  }
}

function judgeError({ driver }: Run, error: unknown): readonly string[] {
  const files = driver.fired.map(({ file }) => file);
  if (error === null) return [`nothing was said of ${driver.fired[0]?.operation} of ${files[0]}`];
  if (!(error instanceof DownfoldError)) return [`an untyped error: ${(error as Error).stack}`];
  const named = files.some((file) => error.message.includes(file));
  return named ? [] : [`the error names none of ${files.join(', ')}: ${error.message}`];
}

/** A failed flush is final on this boot; the user's word ends that. */
async function failedFlush(
  one: Case,
  { disk, driver }: Run,
  error: unknown,
): Promise<readonly string[]> {
  const records = one.gallery.journal(disk, one.journal);
  if (typeof records === 'string' || !(error instanceof DownfoldError)) return [];
  if (error.code !== 'COMMIT_STOPPED' || error.details['code'] !== 'STORAGE_FLUSH_FAILED')
    return [];
  // all is done, and nobody goes on with it
  if (records === null) return [];
  const noted = records.some(({ type }) => type === 'FAILED');
  if (!noted) return driver.fired.length > 1 ? [] : ['nobody noted that a flush failed'];
  const backend = memoryBackend(disk.copy());
  const { file } = one.request;
  const refused = await failureOf(engineOn(backend, 1).resume(file, one.options));
  if (!(refused instanceof DownfoldError) || refused.code !== 'COMMIT_FLUSH_FAILED')
    return [`a failed flush was gone over: ${refused}`];
  const options = { ...one.options, afterFailedFlush: true };
  const forced = await failureOf(engineOn(backend, 1).resume(file, options));
  return forced === null ? [] : [`after the user's word: ${forced}`];
}

/** A fault that passes is overcome without anybody's help but the word to try again. */
async function passing(one: Case, rule: FaultRule): Promise<readonly string[]> {
  if (rule.times !== 1 || rule.operation === 'flush' || rule.operation === 'flushDirectory')
    return [];
  const run = begin(one);
  run.driver.inject(rule);
  const engine = engineOn(openBackend(run.driver), 1);
  const options = { ...one.options, onFailure: async () => true };
  const error = await failureOf(engine.run(one.plan, options));
  if (error !== null) return [`was not overcome by trying again: ${error}`];
  return brokenEnd(one, run.disk);
}
