import { markdownTable } from '../tools/docs.ts';
import { type Draw, draw } from '../tools/draw.ts';
import {
  everyFileSystem,
  oneDirectory,
  plainDirectory,
  type TrialDirectory,
} from '../tools/file-system.ts';
import { inLanes } from '../tools/parallel.ts';
import { JOBS, type KillJob } from './jobs.ts';
import { anyMoment, type Life, lifeOf, shortened } from './moment.ts';
import { type Found, killOnce } from './one-kill.ts';
import { makePool, type Pool } from './pool.ts';
import { type PoolSpec, SIBLINGS } from './pools.ts';
import { journalOf } from './promises.ts';

/** What the kills of one job on one file system showed. */
export interface MatrixRow {
  readonly job: string;
  readonly fileSystem: string;
  readonly found: Readonly<Record<Found, number>>;
  readonly aborted: number;
  readonly failures: readonly string[];
}

/** How much to try. */
export interface MatrixOptions {
  /** Kills at least, all jobs and file systems together. */
  readonly kills: number;
  readonly seed: number;
  /** Only here, on one pool, and by the clock; else on file systems of their own where loop devices are, on all pools. */
  readonly quick: boolean;
}

/** File systems that kills go on on at once. */
const LANES = 2;

/** Kills every job on every file system. */
export async function killMatrix(options: MatrixOptions): Promise<readonly MatrixRow[]> {
  await using directories = options.quick
    ? oneDirectory(await plainDirectory())
    : await everyFileSystem();
  const { all } = directories;
  const each = Math.ceil(options.kills / (JOBS.length * all.length));
  const rows = new Map<TrialDirectory, readonly MatrixRow[]>(all.map((one) => [one, []]));
  await inLanes(LANES, all, async (directory) => {
    rows.set(directory, await killOn(directory, each, options));
  });
  return [...rows.values()].flat();
}

async function killOn(
  { path, kind }: TrialDirectory,
  each: number,
  { seed, quick }: MatrixOptions,
): Promise<readonly MatrixRow[]> {
  const pools = new Map<string, Pool>();
  const poolFor = async (spec: PoolSpec): Promise<Pool> => {
    const pool = pools.get(spec.name) ?? (await makePool(spec, path));
    pools.set(spec.name, pool);
    return pool;
  };
  const rows: MatrixRow[] = [];
  for (const [index, job] of JOBS.entries()) {
    const from = draw(Buffer.from(`${seed} ${kind} ${job.name}`).reduce(hash, 0));
    const pools = quick ? [SIBLINGS] : turned(job.pools, index + kind.length);
    rows.push(await killJob(job, { each, kind, pools, traced: !quick, from, poolFor }));
  }
  return rows;
}

/** So that every job on every file system has a seed of its own. */
function hash(before: number, byte: number): number {
  return (before * 31 + byte) % 2 ** 31;
}

interface JobKills {
  readonly each: number;
  readonly kind: string;
  readonly pools: readonly PoolSpec[];
  readonly traced: boolean;
  readonly from: Draw;
  poolFor(spec: PoolSpec): Promise<Pool>;
}

/** With few kills each file system sees other pools. */
function turned(pools: readonly PoolSpec[], by: number): readonly PoolSpec[] {
  const first = by % pools.length;
  return [...pools.slice(first), ...pools.slice(0, first)];
}

/** Kills of one job: in runs on one pool each, so that its life is measured once. */
async function killJob(
  job: KillJob,
  { each, kind, pools, traced, from, poolFor }: JobKills,
): Promise<MatrixRow> {
  const found = { 'not begun': 0, interrupted: 0, done: 0 };
  const failures: string[] = [];
  let aborted = 0;
  const perPool = Math.max(4, Math.ceil(each / pools.length));
  let life: Life | null = null;
  for (let kill = 0; kill < each; kill += 1) {
    const pool = await poolFor(pools[Math.floor(kill / perPool)] as PoolSpec);
    if (kill % perPool === 0)
      life = await lifeOf(job.begin(pool), journalOf(pool), pool.restore, traced);
    const moment = anyMoment(from, life as Life, journalOf(pool));
    try {
      const figures = await killOnce(job, pool, moment, from);
      found[figures.found] += 1;
      if (figures.aborted) aborted += 1;
      life = shortened(life as Life, figures.journal);
    } catch (error) {
      failures.push(`${kind}: kill ${kill}: ${(error as Error).message}`);
    }
  }
  return { job: job.name, fileSystem: kind, found, aborted, failures };
}

/** The rows, and their sum, as a table. */
export function matrixTable(rows: readonly MatrixRow[]): string {
  const head = [
    'job',
    'file system',
    'kills',
    'not begun',
    'interrupted',
    'done',
    'given up',
    'failures',
  ];
  return markdownTable(head, [...rows.map(cellsOf), cellsOf(sumOf(rows))]);
}

function cellsOf({ job, fileSystem, found, aborted, failures }: MatrixRow): readonly string[] {
  const numbers = [found['not begun'], found.interrupted, found.done];
  const kills = numbers.reduce((sum, one) => sum + one, failures.length);
  return [job, fileSystem, ...[kills, ...numbers, aborted, failures.length].map(String)];
}

function sumOf(rows: readonly MatrixRow[]): MatrixRow {
  const sum = (of: (row: MatrixRow) => number): number =>
    rows.reduce((total, row) => total + of(row), 0);
  return {
    job: 'all',
    fileSystem: 'all',
    found: {
      'not begun': sum(({ found }) => found['not begun']),
      interrupted: sum(({ found }) => found.interrupted),
      done: sum(({ found }) => found.done),
    },
    aborted: sum((row) => row.aborted),
    failures: rows.flatMap(({ failures }) => failures),
  };
}
