import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { must } from '../tools/process.ts';
import { qemuIo } from '../tools/qemu.ts';
import { fileOf, type OwnCluster } from './chain.ts';
import { type Daemon, type DaemonOptions, DOWNFOLDD, startDaemon } from './daemon.ts';
import { tracer } from './trace.ts';

/** Something that QEMU, or our server, does with a chain. */
export interface Operation {
  readonly name: string;
  /** What the chain of a directory is when it is over is left behind; what was done to it is written to `output` by strace. */
  run(directory: string, output: string, own: OwnCluster): Promise<void>;
}

const INTERMEDIATE = {
  device: 'active',
  'top-node': 'top',
  'base-node': 'base',
  'backing-file': fileOf('base'),
} as const;

const STREAM = {
  device: 'active',
  'base-node': 'base',
  'backing-file': fileOf('base'),
} as const;

/** What a daemon of either kind is made to do, and how it has base open meanwhile. */
const JOBS: readonly (readonly [
  name: string,
  baseWritable: boolean,
  work: (daemon: Daemon, own: OwnCluster) => Promise<void>,
])[] = [
  [
    'block-commit, intermediate, base opened read-only',
    false,
    (daemon) => job(daemon, 'block-commit', INTERMEDIATE),
  ],
  [
    'block-commit, intermediate, base opened read-write',
    true,
    (daemon) => job(daemon, 'block-commit', INTERMEDIATE),
  ],
  [
    'the same, then the guest writes and flushes',
    true,
    async (daemon, own) => {
      await job(daemon, 'block-commit', INTERMEDIATE);
      await writeAgain(daemon, own);
    },
  ],
  [
    'block-stream onto an intermediate base',
    false,
    (daemon) => job(daemon, 'block-stream', STREAM),
  ],
  [
    'block-stream, then the guest writes and flushes',
    false,
    async (daemon, own) => {
      await job(daemon, 'block-stream', STREAM);
      await writeAgain(daemon, own);
    },
  ],
];

/** Operations that fold layers, as the tools of Debian's QEMU do them. Killed once QEMU has reported success. */
export const OPERATIONS: readonly Operation[] = [
  ...JOBS.map(([name, baseWritable, work]) => ({
    name,
    run: withDaemon(['qemu-storage-daemon'], baseWritable, work),
  })),
  {
    name: 'block-commit, active, and job-complete',
    run: withDaemon(['qemu-storage-daemon'], false, async (daemon) => {
      const active = { device: 'active', 'base-node': 'base' };
      await begin(daemon, 'block-commit', active);
      await daemon.reaches('ready');
      await daemon.execute('job-complete', { id: JOB });
      await daemon.reaches('concluded');
    }),
  },
  {
    name: 'qemu-img commit',
    run: async (directory, output) => {
      const [program = '', ...args] = [
        ...tracer(directory, output),
        ...['qemu-img', 'commit', '-q', '-f', 'qcow2', fileOf('active')],
      ];
      await must(program, args, { cwd: directory });
    },
  },
];

/**
 * The same by our server, the process itself, by the same commands. Which image is the disk after a pivot its journal says, which is not looked at here.
 * @param environment of the server, besides what this process has
 */
export function serverOperations(
  environment: Readonly<Record<string, string | undefined>> = {},
): readonly Operation[] {
  const set = Object.entries(environment).map(([name, value]) => `${name}=${value}`);
  return JOBS.map(([name, baseWritable, work]) => ({
    name: `downfoldd, ${name}`,
    run: withDaemon(['env', ...set, ...DOWNFOLDD], baseWritable, work),
  }));
}

const JOB = 'job';
/** Milliseconds between the success and the kill. */
const AFTERWARDS = 300;

/** Starts a job. It stays when it is over, so that QEMU does nothing else before the kill. */
async function begin(daemon: Daemon, command: string, args: object): Promise<void> {
  await daemon.execute(command, { ...args, 'job-id': JOB, 'auto-dismiss': false });
}

async function job(daemon: Daemon, command: string, args: object): Promise<void> {
  await begin(daemon, command, args);
  await daemon.reaches('concluded');
  const [{ error = null } = {}] = (await daemon.execute('query-jobs', {})) as { error?: string }[];
  if (error !== null) throw new Error(`${command}: ${error}`);
  await daemon.execute('job-dismiss', { id: JOB });
}

/** A guest that writes what it reads already, and has it flushed: no view changes, and the flush is acknowledged. */
async function writeAgain({ uri }: Daemon, { offset, length, byte }: OwnCluster): Promise<void> {
  await qemuIo(uri, 'raw', [`write -q -P ${byte} ${offset} ${length}`, 'flush']);
}

function withDaemon(
  program: DaemonOptions['program'],
  baseWritable: DaemonOptions['baseWritable'],
  work: (daemon: Daemon, own: OwnCluster) => Promise<void>,
): Operation['run'] {
  return async (directory, output, own) => {
    const options = { program, baseWritable, tracer: tracer(directory, output) };
    await using daemon = await startDaemon(directory, options);
    await work(daemon, own);
    // whatever it does by itself once it has reported success counts for it
    await sleep(AFTERWARDS);
    await daemon.kill();
  };
}

/** Version of the tools, such as `7.2.22`. */
export async function qemuVersion(): Promise<string> {
  const text = await must('qemu-storage-daemon', ['--version']);
  return /version (\S+)/.exec(text)?.[1] ?? text.trim();
}

/** What strace wrote. */
export function readTrace(directory: string, name: string): Promise<string> {
  return readFile(join(directory, name), 'utf8');
}
