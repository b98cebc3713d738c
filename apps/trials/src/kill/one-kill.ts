import { readFile, rm, writeFile } from 'node:fs/promises';
import { downfold, downfoldJson } from '../tools/cli.ts';
import type { Draw } from '../tools/draw.ts';
import type { KillJob } from './jobs.ts';
import { recordsIn } from './journal-file.ts';
import type { Pool } from './pool.ts';
import { brokenAbort, brokenByKill, brokenEnd, isRelinked, journalOf } from './promises.ts';
import { describeMoment, type Moment, startAndKill } from './victim.ts';

/** Where a kill found a job. */
export type Found = 'not begun' | 'interrupted' | 'done';

/** What one kill showed. */
export interface KillFigures {
  readonly found: Found;
  /** It was then given up, and begun again, instead of resumed. */
  readonly aborted: boolean;
  /** Of a victim that ended before its moment came: how long its journal was there, in milliseconds, when somebody watched. */
  readonly journal: number | null;
}

/** Bytes between two checkpoints in every second job: small, so that resumed jobs start in the middle. */
const SMALL_EPOCH = 4 << 20;

/** Kills a job at `moment`, looks, resumes it or gives it up, looks again. Rejects with what was wrong. */
export async function killOnce(
  job: KillJob,
  pool: Pool,
  moment: Moment,
  from: Draw,
): Promise<KillFigures> {
  const [small, abort] = [from.chance(0.5), from.chance(0.33)];
  await pool.restore();
  const plan = `${pool.directory}.plan`;
  const begin =
    small && job.operation === 'commit' ? await plannedArguments(job, pool, plan) : job.begin(pool);
  const victim = await startAndKill(begin, moment);
  await rm(plan, { force: true });
  const where = `${job.name} of ${pool.spec.name}, killed ${describeMoment(moment)}`;
  if (!victim.killed && victim.code !== 0)
    throw new Error(`${where}: it failed before: ${victim.stderr}`);
  const found = await lookAt(job, pool, where);
  const { journal } = victim;
  if (found === 'interrupted' && abort)
    return { found, aborted: await giveUp(job, pool, where), journal };
  if (found === 'interrupted') await downfoldJson(['resume', pool.path('active')]);
  if (found === 'not begun') await downfoldJson(job.begin(pool));
  assertNothing(await brokenEnd(job, pool), `${where}, found ${found}, and finished`);
  return { found, aborted: false, journal };
}

/** The same job by way of a plan file, with a checkpoint every few MiB. */
async function plannedArguments(
  job: KillJob,
  pool: Pool,
  path: string,
): Promise<readonly string[]> {
  await rm(path, { force: true });
  await downfoldJson([...job.begin(pool), '--plan-out', path]);
  const plan = JSON.parse(await readFile(path, 'utf8')) as { request: { checkpointBytes: number } };
  plan.request.checkpointBytes = SMALL_EPOCH;
  await writeFile(path, JSON.stringify(plan));
  return ['commit', '--plan', path, pool.path('active')];
}

/** Checks the promises in the state that the kill left. */
async function lookAt(job: KillJob, pool: Pool, where: string): Promise<Found> {
  const records = await recordsIn(journalOf(pool));
  if (records.length === 0 && (await isRelinked(pool))) return 'done';
  assertNothing(await brokenByKill(job, pool, records), `${where}, before anything else`);
  return records.length === 0 ? 'not begun' : 'interrupted';
}

/** Gives the job up, and does it again from the start. False: all was in place already, so it had to be resumed. */
async function giveUp(job: KillJob, pool: Pool, where: string): Promise<boolean> {
  const active = pool.path('active');
  const ended = await downfold(['abort', active, '--output', 'json']);
  const past = ended.code !== 0 && /all data is in place/.test(ended.stderr);
  if (past) await downfoldJson(['resume', active]);
  else {
    if (ended.code !== 0) throw new Error(`${where}: abort: exit ${ended.code}: ${ended.stderr}`);
    const result = JSON.parse(ended.stdout) as { undone: boolean; mixed: string[] };
    assertNothing(await brokenAbort(job, pool, result), `${where}, then aborted`);
    await downfoldJson(job.begin(pool));
  }
  const after = past ? 'resumed' : 'aborted and begun again';
  assertNothing(await brokenEnd(job, pool, !past), `${where}, then ${after}`);
  return !past;
}

function assertNothing(problems: readonly string[], where: string): void {
  if (problems.length > 0) throw new Error(`${where}: ${problems.join('; ')}`);
}
