import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { bareCopy, extentsOf } from './bare-copy.ts';
import {
  assertCommitted,
  type BenchChain,
  coolDown,
  makeChain,
  putBack,
  type Shape,
  touchMemory,
} from './chain.ts';
import { type Contest, opened, type Stage } from './contest.ts';
import { blockdevsOf, type DaemonName, runJob, startDaemon } from './daemon.ts';
import { type LoopKind, missingFor, onLoop } from './file-system.ts';
import { must, type Timing, timed, timedIn } from './process.ts';

export const CLI: string = fileURLToPath(new URL('../../cli/bin/downfold.js', import.meta.url));

type Opponent = 'qemu-img' | 'intermediate' | 'active' | 'bare copy';

/** What is committed, against whom, and the ratio wanted of each. */
interface CommitRow {
  readonly shape: Shape;
  readonly mebibytes: number;
  readonly goals: Partial<Readonly<Record<Opponent, number>>>;
  /** Against `qemu-img commit`, with nothing in the page cache. */
  readonly cold?: number;
  /** Another file system than the directory's. */
  readonly on?: LoopKind;
}

const GIB = 1024;
const ROWS: readonly CommitRow[] = [
  {
    shape: 'sequential',
    mebibytes: GIB,
    goals: { 'qemu-img': 0.65, intermediate: 0.33, active: 0.5, 'bare copy': 1.15 },
    cold: 1,
  },
  {
    shape: 'scattered',
    mebibytes: GIB,
    goals: { 'qemu-img': 0.5, intermediate: 0.2, active: 0.45, 'bare copy': 1.15 },
    cold: 0.75,
  },
  {
    shape: 'subclusters',
    mebibytes: GIB / 4,
    goals: { 'qemu-img': 0.25, intermediate: 0.1, active: 0.25, 'bare copy': 1.15 },
  },
  {
    shape: 'small clusters',
    mebibytes: GIB / 4,
    goals: { 'qemu-img': 0.25, intermediate: 0.1, active: 0.25, 'bare copy': 1.15 },
  },
  { shape: 'zeroes', mebibytes: GIB, goals: { 'qemu-img': 1, intermediate: 0.15, active: 1 } },
  { shape: 'deep', mebibytes: GIB, goals: { 'qemu-img': 0.5 } },
  { shape: 'zlib', mebibytes: GIB, goals: { 'qemu-img': 1 } },
  { shape: 'zstd', mebibytes: GIB, goals: { 'qemu-img': 1 } },
  { shape: 'sequential', mebibytes: 4 * GIB, goals: { 'qemu-img': 0.3 }, on: 'xfs' },
  { shape: 'sequential', mebibytes: 4 * GIB, goals: { 'qemu-img': 0.1 }, on: 'btrfs' },
];

/** Commits of every shape, against everyone. */
export function commitStages(smoke: boolean): readonly Stage[] {
  return [
    ...ROWS.map((row) => commitStage(row, smoke)),
    tiny(),
    ...(['sequential', 'scattered'] as const).map((shape) => strategies(shape, smoke)),
  ];
}

function commitStage(row: CommitRow, smoke: boolean): Stage {
  const mebibytes = smoke ? 16 : row.mebibytes;
  const name = `commit ${mebibytes} MiB, ${row.shape}${row.on === undefined ? '' : `, ${row.on}`}`;
  const opponents = Object.keys(row.goals) as Opponent[];
  const worksOf = (): string[] => [
    ...opponents.map((opponent) => `${name} (${opponent})`),
    ...(row.cold === undefined ? [] : [`${name}, cold`]),
  ];
  return {
    name,
    works: worksOf(),
    missing: () => (row.on === undefined ? null : missingFor(row.on)),
    open: async (directory) => {
      await using held = new AsyncDisposableStack();
      const where = row.on === undefined ? directory : held.use(onLoop(row.on, directory)).path;
      const chain = makeChain(where, row.shape, mebibytes);
      const contests: Contest[] = opponents.map((opponent) => ({
        ...contest(chain, `${name} (${opponent})`, opponent, row.goals[opponent] ?? null, smoke),
        helped: row.on !== undefined,
      }));
      if (row.cold !== undefined)
        contests.push(contest(chain, `${name}, cold`, 'qemu-img', row.cold, smoke, true));
      const kept = held.move();
      return { contests, [Symbol.asyncDispose]: () => kept.disposeAsync() };
    },
  };
}

const NAMES: Readonly<Record<Opponent, string>> = {
  'qemu-img': '`qemu-img commit -d`',
  intermediate: '`qemu-storage-daemon`, intermediate',
  active: '`qemu-storage-daemon`, active',
  'bare copy': 'the bare copy, in C',
};

function contest(
  chain: BenchChain,
  work: string,
  opponent: Opponent,
  goal: number | null,
  smoke: boolean,
  cold = false,
): Contest {
  const prepared = async (run: () => Timing | Promise<Timing>): Promise<Timing> => {
    // an image of an earlier run that stands on top would need it
    rmSync(diskOf(chain), { force: true });
    putBack(chain);
    if (!smoke) touchMemory();
    if (cold) coolDown();
    return await run();
  };
  const theirs: Readonly<Record<Opponent, () => Timing | Promise<Timing>>> = {
    'qemu-img': () => byQemu(chain),
    intermediate: () => byDaemon('qemu-storage-daemon', chain, 'intermediate'),
    active: () => byDaemon('qemu-storage-daemon', chain, 'active'),
    'bare copy': () => bareCopy(chain, extents()),
  };
  const ours: Readonly<Record<Opponent, () => Timing | Promise<Timing>>> = {
    'qemu-img': () => byDownfold(chain),
    'bare copy': () => byDownfold(chain),
    intermediate: () => byDaemon('downfoldd', chain, 'intermediate'),
    active: () => byDaemon('downfoldd', chain, 'active'),
  };
  let found: string | null = null;
  const extents = (): string => {
    if (found !== null) return found;
    found = extentsOf(chain, () => byDownfold(chain));
    putBack(chain);
    return found;
  };
  let turns = 0;
  return {
    work,
    against: NAMES[opponent],
    goal,
    ours: () => prepared(ours[opponent]),
    theirs: () => prepared(theirs[opponent]),
    verify: async () => {
      turns += 1;
      // the bare copy goes first, and writes no metadata: there is nothing to compare
      if (opponent !== 'bare copy' || turns > 1) assertCommitted(chain);
    },
  };
}

function byQemu(chain: BenchChain): Timing {
  return timed('qemu-img', ['commit', '-q', '-d', '-f', 'qcow2', '-b', chain.base, chain.top]);
}

function byDownfold(chain: BenchChain, ...options: readonly string[]): Timing {
  const args = ['commit', '-q', '-d', '-f', 'qcow2', ...options, '-b', chain.base, chain.top];
  return timed(process.execPath, [CLI, ...args]);
}

/** The job in a daemon that has the chain open: from the command to the end of the job. */
async function byDaemon(
  name: DaemonName,
  chain: BenchChain,
  kind: 'intermediate' | 'active',
): Promise<Timing> {
  const active = kind === 'active';
  const images = active ? chain.layers : [...chain.layers, putOnTop(chain)];
  await using daemon = await startDaemon(name, chain.directory, blockdevsOf(images));
  const args = active ? activeIn(chain) : intermediateIn(chain);
  return await timedIn(daemon.pid, () => runJob(daemon.qmp, 'block-commit', args, active));
}

const topNode = ({ layers }: BenchChain): string => `node${layers.length - 1}`;
const activeIn = (chain: BenchChain): object => ({ device: topNode(chain), 'base-node': 'node0' });

/** Arguments of `block-commit` beneath the image of `putOnTop`. */
export const intermediateIn = (chain: BenchChain): object => ({
  device: `node${chain.layers.length}`,
  'top-node': topNode(chain),
  'base-node': 'node0',
});

const diskOf = ({ directory }: BenchChain): string => join(directory, 'disk.qcow2');

/** The image that stands on top when top is not the disk itself: new for every run, since a run relinks it. */
export function putOnTop(chain: BenchChain): string {
  const path = diskOf(chain);
  must('qemu-img', ['create', '-q', '-f', 'qcow2', '-b', chain.top, '-F', 'qcow2', path]);
  return path;
}

/** One MiB: almost all of it is the start of a process. */
function tiny(): Stage {
  const name = 'commit 1 MiB, sequential';
  return {
    name,
    works: [name],
    missing: () => null,
    open: async (directory) => {
      const chain = makeChain(directory, 'sequential', 2);
      return opened([contest(chain, name, 'qemu-img', 2.5, false)]);
    },
  };
}

const STRATEGIES = ['depth-first', 'preserve', 'staged'] as const;

/** The other strategies next to `copy-down`. */
function strategies(shape: Shape, smoke: boolean): Stage {
  const mebibytes = smoke ? 16 : GIB;
  const name = `commit ${mebibytes} MiB, ${shape}, by strategy`;
  const works = STRATEGIES.map((strategy) => `${name}: ${strategy}`);
  return {
    name,
    works,
    missing: () => null,
    open: async (directory) => {
      // depth-first takes clusters out of the images between
      const chain = makeChain(directory, shape, mebibytes, 'all');
      const run = async (strategy: string): Promise<Timing> => {
        putBack(chain);
        if (!smoke) touchMemory();
        return byDownfold(chain, '--strategy', strategy);
      };
      return opened(
        STRATEGIES.map((strategy, index) => ({
          work: works[index] as string,
          against: '`copy-down`',
          goal: 1.3,
          ours: () => run(strategy),
          theirs: () => run('copy-down'),
          verify: async () => assertCommitted(chain),
        })),
      );
    },
  };
}
