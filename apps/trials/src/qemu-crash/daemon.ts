import { type ChildProcess, spawn } from 'node:child_process';
import { mkdir, readFile } from 'node:fs/promises';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { fileOf, IMAGES } from './chain.ts';

/** A JSON object that a daemon sent. */
type Message = Readonly<Record<string, unknown>>;

/** Ours, as users start it: it takes the same options. */
export const DOWNFOLDD: readonly string[] = [
  process.execPath,
  fileURLToPath(new URL('../../../server/bin/downfoldd.js', import.meta.url)),
];

/** How the daemon opens the chain. */
export interface DaemonOptions {
  /** `qemu-storage-daemon`, or one that takes its options. */
  readonly program: readonly string[];
  /** Whether the user opens base for writing. libvirt does not: the job then does. */
  readonly baseWritable: boolean;
  /** What to put before the command. */
  readonly tracer: readonly string[];
}

/** A running daemon that has the chain of a directory open, and exports active over NBD. */
export interface Daemon extends AsyncDisposable {
  /** NBD URI of active. */
  readonly uri: string;
  /** Runs a QMP command. @throws Error with what the daemon answered */
  execute(command: string, args: Message): Promise<unknown>;
  /** Resolves when a job is in this state. */
  reaches(status: string): Promise<void>;
  /** kill -9; resolves when it is gone. */
  kill(): Promise<void>;
}

/** Longest that anything the daemon does may take, in milliseconds. */
const PATIENCE = 30_000;

/** Starts the daemon. */
export async function startDaemon(directory: string, options: DaemonOptions): Promise<Daemon> {
  const names = ['daemon.pid', 'run/nbd.sock', 'run/qmp.sock'];
  const [pidFile, socket, monitor] = names.map((name) => join(directory, name)) as [
    string,
    string,
    string,
  ];
  await mkdir(join(directory, 'run'), { mode: 0o700 });
  const [program = '', ...args] = [
    ...options.tracer,
    ...options.program,
    ...IMAGES.flatMap((_, index) => ['--blockdev', JSON.stringify(nodeAt(index, options))]),
    ...['--nbd-server', `addr.type=unix,addr.path=${socket}`],
    ...['--export', 'type=nbd,id=export,node-name=active,name=active,writable=on'],
    ...['--chardev', `socket,id=qmp,path=${monitor},server=on,wait=off`],
    ...['--monitor', 'chardev=qmp', '--pidfile', pidFile],
  ];
  const child = spawn(program, args, {
    cwd: directory,
    env: { ...process.env, NODE_EXTRA_CA_CERTS: undefined, NODE_OPTIONS: undefined },
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  let said = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    said += text;
  });
  const gone = new Promise<void>((resolve, reject) => {
    child.on('error', reject);
    child.on('close', () => resolve());
  });
  const qmp = await connected(monitor, child);
  const messages = new Inbox(qmp, () => said);
  await messages.next((message) => 'QMP' in message);
  const execute = async (execute: string, args: Message): Promise<unknown> => {
    qmp.write(`${JSON.stringify({ execute, arguments: args })}\n`);
    const answer = await messages.next((message) => 'return' in message || 'error' in message);
    if ('error' in answer) throw new Error(`${execute}: ${JSON.stringify(answer['error'])}`);
    return answer['return'];
  };
  const kill = async (): Promise<void> => {
    // the daemon itself, not who traces it: else it would go on
    if (child.exitCode === null && child.signalCode === null)
      process.kill(Number(await readFile(pidFile, 'utf8')), 'SIGKILL');
    await gone;
  };
  await execute('qmp_capabilities', {});
  return {
    uri: `nbd+unix:///active?socket=${socket}`,
    execute,
    reaches: async (status) => {
      await messages.next(({ event, data }) => {
        return event === 'JOB_STATUS_CHANGE' && (data as Message)['status'] === status;
      });
    },
    kill,
    [Symbol.asyncDispose]: kill,
  };
}

/** The socket of the monitor, once the daemon listens. */
async function connected(path: string, child: ChildProcess): Promise<Socket> {
  for (const deadline = performance.now() + PATIENCE; ; await sleep(10)) {
    const socket = connect(path);
    const isOpen = await new Promise<boolean>((resolve) => {
      socket.once('connect', () => resolve(true)).once('error', () => resolve(false));
    });
    // a daemon that is killed may reset the connection
    if (isOpen) return socket.on('error', () => undefined);
    if (child.exitCode !== null || performance.now() > deadline)
      throw new Error('the daemon does not listen');
  }
}

function nodeAt(index: number, { baseWritable }: DaemonOptions): Message {
  const name = IMAGES[index] as string;
  const writable = name === 'active' || (name === 'base' && baseWritable);
  const below = IMAGES[index - 1];
  return {
    driver: 'qcow2',
    'node-name': name,
    'read-only': !writable,
    file: { driver: 'file', filename: fileOf(name) },
    ...(below === undefined ? {} : { backing: below }),
  };
}

/** Messages in the order in which they came; each is taken once. */
class Inbox {
  readonly #waiting: Message[] = [];
  #wake: (() => void) | null = null;
  #ended = false;

  readonly #said: () => string;

  constructor(stream: Socket, said: () => string) {
    this.#said = said;
    createInterface({ input: stream })
      .on('line', (line) => {
        this.#waiting.push(JSON.parse(line) as Message);
        this.#wake?.();
      })
      .on('close', () => {
        this.#ended = true;
        this.#wake?.();
      });
  }

  /** The first message that is wanted; others stay. */
  async next(wanted: (message: Message) => boolean): Promise<Message> {
    const deadline = performance.now() + PATIENCE;
    for (;;) {
      const index = this.#waiting.findIndex(wanted);
      if (index >= 0) return this.#waiting.splice(index, 1)[0] as Message;
      if (this.#ended) throw new Error(`the daemon ended: ${this.#said()}`);
      if (performance.now() > deadline)
        throw new Error(`the daemon does not answer: ${this.#said()}`);
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, 1000);
        this.#wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
  }
}
