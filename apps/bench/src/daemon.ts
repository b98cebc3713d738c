import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { connectQmp, type QmpClient } from '@downfold/qmp';
import { environment } from './process.ts';

/** Both take the same options. */
export type DaemonName = 'downfoldd' | 'qemu-storage-daemon';

/** A running daemon. It ends by `quit` when it goes out of scope: QEMU's, when it is killed, has not written all that it reported. */
export interface Daemon extends AsyncDisposable {
  readonly pid: number;
  readonly qmp: QmpClient;
}

const DOWNFOLDD = fileURLToPath(new URL('../../server/bin/downfoldd.js', import.meta.url));

/** How long a daemon may take to open its socket, in milliseconds. */
const PATIENCE = 20_000;

/** Starts a daemon in `directory` with `args`, and a QMP socket there. */
export async function startDaemon(
  name: DaemonName,
  directory: string,
  args: readonly string[],
): Promise<Daemon> {
  const socket = join(directory, `${name}.qmp`);
  const monitor = ['--chardev', `socket,id=m,path=${socket},server=on,wait=off`];
  const [program, before] = name === 'downfoldd' ? [process.execPath, [DOWNFOLDD]] : [name, []];
  const child = spawn(program, [...before, ...args, ...monitor, '--monitor', 'chardev=m'], {
    cwd: directory,
    env: environment,
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  const gone = once(child, 'exit');
  const said = whatItSays(child);
  try {
    const qmp = await connected(socket, child, said);
    return {
      pid: child.pid as number,
      qmp,
      [Symbol.asyncDispose]: async () => {
        await qmp.execute('quit');
        await gone;
        await qmp[Symbol.asyncDispose]();
      },
    };
  } catch (error) {
    child.kill('SIGKILL');
    throw error;
  }
}

async function connected(
  socket: string,
  child: ChildProcess,
  said: () => string,
): Promise<QmpClient> {
  for (const deadline = performance.now() + PATIENCE; ; await sleep(10)) {
    try {
      return await connectQmp(socket);
    } catch (error) {
      const over = child.exitCode !== null || performance.now() > deadline;
      if (over) throw new Error(`${child.spawnfile} does not serve: ${said()}`, { cause: error });
    }
  }
}

function whatItSays({ stderr }: ChildProcess): () => string {
  const parts: string[] = [];
  stderr?.setEncoding('utf8').on('data', (text: string) => parts.push(text));
  return () => parts.join('');
}

/**
 * Runs a job to its end.
 * @param complete whether it becomes ready on the way, as an active commit does, and is completed then
 */
export async function runJob(
  qmp: QmpClient,
  command: string,
  args: object,
  complete: boolean,
): Promise<void> {
  await using events = qmp.events();
  await qmp.execute(command, { 'job-id': 'job', ...args });
  for await (const { event, data } of events) {
    const { status } = data as { readonly status?: string };
    if (event !== 'JOB_STATUS_CHANGE') continue;
    if (status === 'ready' && complete) await qmp.execute('job-complete', { id: 'job' });
    // both dismiss by themselves; what failed says so in BLOCK_JOB_COMPLETED, and the result is compared afterwards
    if (status === 'null') return;
  }
}

/** `--blockdev` for a chain of qcow2 images, base first, as nodes `node0`, `node1`, ...; only the last is written. */
export function blockdevsOf(
  images: readonly string[],
  driver = 'qcow2',
  writable = true,
): string[] {
  return images.flatMap((filename, index) => [
    '--blockdev',
    JSON.stringify({
      driver,
      'node-name': `node${index}`,
      'read-only': !(writable && index === images.length - 1),
      file: { driver: 'file', filename },
      ...(index === 0 ? {} : { backing: `node${index - 1}` }),
    }),
  ]);
}

/** Where a daemon in `directory` serves `node`, as `--nbd-server` and `--export` say it, and as clients do. */
export function nbdExport(
  directory: string,
  node: string,
  writable: boolean,
): { readonly args: readonly string[]; readonly uri: string } {
  const socket = nbdSocket(directory);
  return {
    args: [
      ...['--nbd-server', `addr.type=unix,addr.path=${socket}`],
      ...['--export', `type=nbd,id=e,node-name=${node},name=,writable=${writable ? 'on' : 'off'}`],
    ],
    uri: nbdUri(socket),
  };
}

export const nbdSocket = (directory: string): string => join(directory, 'nbd.sock');
export const nbdUri = (socket: string): string => `nbd+unix:///?socket=${socket}`;
