import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { makeChain } from './chain.ts';
import { type Contest, opened, type Stage } from './contest.ts';
import { blockdevsOf, nbdExport, nbdSocket, nbdUri, startDaemon } from './daemon.ts';
import { fioReads } from './fio.ts';
import { environment, have, must, type Timing, timed } from './process.ts';

/** What a client does with the disk at `uri`. */
interface Load {
  readonly name: string;
  /** Writes: the export is writable. */
  readonly writes: boolean;
  readonly goal: number;
  readonly client: (uri: string, mebibytes: number) => readonly [string, ...string[]];
}

const copyOut =
  (connections: number): Load['client'] =>
  (uri) => ['nbdcopy', `--connections=${connections}`, uri, 'null:'];

/** So many that each side takes about a second. */
const randomReads =
  (depth: number, jobs: number, count: number): Load['client'] =>
  (uri, mebibytes) => [
    'fio',
    ...fioReads(uri, { mebibytes, depth, jobs, count }),
    '--output=/dev/null',
  ];

const LOADS: readonly Load[] = [
  { name: 'read, 4 connections', writes: false, goal: 0.4, client: copyOut(4) },
  { name: 'read, 1 connection', writes: false, goal: 0.8, client: copyOut(1) },
  {
    name: 'write, 4 connections',
    writes: true,
    goal: 0.5,
    client: (uri) => ['nbdcopy', '--connections=4', '--flush', 'source.raw', uri],
  },
  {
    name: '4 KiB random read, depth 1',
    writes: false,
    goal: 0.75,
    client: randomReads(1, 1, 20_000),
  },
  {
    name: '4 KiB random read, depth 16',
    writes: false,
    goal: 0.3,
    client: randomReads(16, 1, 60_000),
  },
  {
    name: '4 KiB random read, 4 jobs x depth 16',
    writes: false,
    goal: 0.2,
    client: randomReads(16, 4, 20_000),
  },
];

const DISKS = ['raw file', '3-layer chain'] as const;

/** Clients that are not ours read and write what ours and QEMU's server export. */
export function nbdStages(smoke: boolean): readonly Stage[] {
  const mebibytes = smoke ? 16 : 1024;
  return DISKS.map((disk) => {
    const works = LOADS.map(({ name }) => `NBD ${name}, ${disk}`);
    return {
      name: `NBD, ${disk}`,
      works,
      missing: () => {
        const lacking = ['qemu-nbd', 'nbdcopy', 'fio'].filter((program) => !have(program));
        return lacking.length === 0 ? null : `${lacking.join(', ')} not installed`;
      },
      open: async (directory) => {
        const { top, topView, layers } = makeChain(directory, 'sequential', mebibytes);
        must('cp', [topView, join(directory, 'source.raw')]);
        const images = disk === 'raw file' ? [topView] : layers;
        const format = disk === 'raw file' ? 'raw' : 'qcow2';
        const file = disk === 'raw file' ? topView : top;
        return opened(
          LOADS.map((load, index): Contest => {
            const run = (uri: string, pid: number): Timing => {
              const [program, ...args] = load.client(uri, mebibytes);
              return timed(
                program,
                args.map((arg) => (arg === 'source.raw' ? join(directory, arg) : arg)),
                pid,
              );
            };
            return {
              work: works[index] as string,
              against: '`qemu-nbd`',
              goal: load.goal,
              ours: () => withDownfoldd(directory, images, format, load.writes, run),
              theirs: () => withQemuNbd(directory, file, format, load.writes, run),
            };
          }),
        );
      },
    };
  });
}

type Run = (uri: string, pid: number) => Timing;

/** The server of each run is new, so that none has learnt from the run before; the page cache stays warm. */
async function withDownfoldd(
  directory: string,
  images: readonly string[],
  format: string,
  writable: boolean,
  run: Run,
): Promise<Timing> {
  const { args, uri } = nbdExport(directory, `node${images.length - 1}`, writable);
  const blockdevs = blockdevsOf(images, format, writable);
  await using daemon = await startDaemon('downfoldd', directory, [...blockdevs, ...args]);
  return run(uri, daemon.pid);
}

async function withQemuNbd(
  directory: string,
  file: string,
  format: string,
  writable: boolean,
  run: Run,
): Promise<Timing> {
  const socket = nbdSocket(directory);
  // one that a server before left would look as if this one served
  rmSync(socket, { force: true });
  const mode = writable ? [] : ['-r'];
  const child = spawn('qemu-nbd', ['-t', '-e', '8', ...mode, '-f', format, '-k', socket, file], {
    env: environment,
    stdio: 'ignore',
  });
  const gone = once(child, 'exit');
  try {
    for (let tries = 0; !existsSync(socket); tries += 1) {
      if (tries > 1000 || child.exitCode !== null) throw new Error('qemu-nbd does not serve');
      await sleep(10);
    }
    return run(nbdUri(socket), child.pid as number);
  } finally {
    child.kill('SIGTERM');
    await gone;
  }
}
