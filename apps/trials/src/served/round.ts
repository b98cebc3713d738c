import { rm } from 'node:fs/promises';
import { journalPath } from '@downfold/commit';
import { Bench } from '@downfold/server/test/support.ts';
import { type Draw, draw } from '../tools/draw.ts';
import { Book } from './book.ts';
import { makeStampedChain } from './chain.ts';
import { inTurn, JOB, jobOf, type Kind, LEAST_LAYERS, letsSnapshots, SPEEDS } from './jobs.ts';
import { leftBehind, shown } from './judge.ts';
import { imagesIn, Life } from './life.ts';
import { isWritten, soon } from './moment.ts';
import { Snapshots } from './snapshots.ts';
import type { Writers } from './writers.ts';

/** Blocks of a disk: 8 MB. */
export const BLOCKS = 1820;

/** What is tried. */
export interface RoundOptions {
  readonly seed: number;
  /** Blocks that are written at least. */
  readonly blocks: number;
  /** Jobs in their order; default: each kind once, in a random order. */
  readonly kinds?: readonly Kind[];
  /** Of the server. */
  readonly environment?: NodeJS.ProcessEnv;
}

/** What a round saw. */
export interface RoundOutcome {
  readonly blocks: number;
  readonly jobs: number;
  readonly snapshots: number;
  readonly kills: number;
  /** Leaks are clusters lost until a job repairs them. */
  readonly problems: readonly string[];
}

/**
 * Four writers while every strategy in turn works beneath them, snapshots are taken in between and meanwhile, and at the end the active layer is committed and
 * the disk pivots. Then what NBD shows, by several readers, is what was written, and what the files hold.
 */
export async function tryRound(options: RoundOptions): Promise<RoundOutcome> {
  const { seed, blocks, environment } = options;
  const from = draw(seed);
  const { kinds = inTurn(from) } = options;
  const book = new Book(BLOCKS);
  await using bench = new Bench(environment);
  const leaf = await makeStampedChain(bench.path, book, from);
  const life = await Life.start(bench, leaf);
  const writers = await life.writers(book, draw(seed + 1_000_003));
  const snapshots = new Snapshots();

  const problems: string[] = [];
  for (const [index, kind] of kinds.entries()) {
    await deepen(life, writers, snapshots, from);
    const story = await runJob(life, kind, writers, snapshots, from);
    problems.push(...story.problems, ...writers.mistakes.map((one) => `${story.what}: ${one}`));
    await forget(bench, life);
    const missing = (blocks * (index + 1)) / kinds.length - writers.written;
    if (missing > 0 && kind !== 'active') await writers.wrote(missing);
    if (problems.length > 0) break;
  }
  await writers.wrote(Math.max(50, blocks - writers.written));
  await writers.stop();
  problems.push(...writers.mistakes, ...(await shown(bench, book, 'answered')).problems);
  const active = await life.active();
  const images = (await life.layers()).map(({ path }) => path);
  const { code, stderr } = await life.served.stop();
  if (code !== 0) problems.push(`the server ended with ${code}: ${stderr}`);
  problems.push(...life.complaints);
  problems.push(
    ...(await leftBehind(bench, images, active.path, { book: null, mayLeak: false })).problems,
  );
  return {
    blocks: writers.written,
    jobs: kinds.length,
    snapshots: snapshots.count,
    kills: 0,
    problems: problems.map((problem) => `${replay('round', seed)}: ${problem}`),
  };
}

/** The line that runs a round again. */
export function replay(what: 'round' | 'kill', seed: number): string {
  return `pnpm --filter @downfold/trials served ${what} 1 ${seed}`;
}

/** Snapshots until there are layers to choose from, each with something written into it. */
export async function deepen(
  life: Life,
  writers: Writers,
  snapshots: Snapshots,
  from: Draw,
): Promise<void> {
  for (let depth = (await life.layers()).length; depth < LEAST_LAYERS; depth++) {
    await writers.wrote(60);
    await life.snapshot(snapshots.next(), from);
  }
  await writers.wrote(40);
}

/** Runs a job from start to dismiss. */
async function runJob(
  life: Life,
  kind: Kind,
  writers: Writers,
  snapshots: Snapshots,
  from: Draw,
): Promise<{ readonly what: string; readonly problems: readonly string[] }> {
  const { served } = life;
  const layers = await life.layers();
  const { name, args } = jobOf(kind, layers, from.pick(SPEEDS), from);
  let what = `${kind} of ${layers.length} layers ${JSON.stringify(args)}`;
  await served.execute(name, args);
  if (kind === 'active') {
    await served.until('BLOCK_JOB_READY');
    await writers.wrote(100);
    await served.execute('job-complete', { id: JOB });
  }
  const over = served.until('null');
  if (letsSnapshots(kind) && from.chance(0.5)) {
    // any time, or about the switch
    const journal = journalPath(layers.at(-1)?.path ?? '');
    const isLate = from.chance(0.5);
    if (isLate) await soon(over, () => isWritten('SWITCH', journal));
    else await writers.wrote(from.integer(100));
    await life.snapshot(snapshots.next(), from);
    what += isLate ? ', snapshot at SWITCH' : ', snapshot';
  }
  const failure = (await over).find((event) => /error|ERROR|CANCELLED/.test(event));
  return { what, problems: failure === undefined ? [] : [`${what}: ${failure}`] };
}

/** Removes images that jobs dropped, as a user does: later jobs must not fear for them. */
export async function forget(bench: Bench, life: Life): Promise<void> {
  const layers = new Set((await life.layers()).map(({ path }) => path));
  for (const path of await imagesIn(bench.path)) if (!layers.has(path)) await rm(path);
}
