import { type ChildProcess, spawn } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileOf, IMAGES } from './chain.ts';

/** A JSON object that `qemu-storage-daemon` sent. */
type Message = Readonly<Record<string, unknown>>;

/** How the daemon opens the chain. */
export interface DaemonOptions {
  /** Whether the user opens base for writing. libvirt does not: the job then does. */
  readonly baseWritable: boolean;
  /** What to put before the command. */
  readonly tracer: readonly string[];
}

/** A running `qemu-storage-daemon` that has the chain of a directory open, and exports active over NBD. */
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
  const [pidFile, socket] = ['daemon.pid', 'nbd.sock'].map((name) => join(directory, name)) as [
    string,
    string,
  ];
  const [program = '', ...args] = [
    ...options.tracer,
    'qemu-storage-daemon',
    ...IMAGES.flatMap((_, index) => ['--blockdev', JSON.stringify(nodeAt(index, options))]),
    ...['--nbd-server', `addr.type=unix,addr.path=${socket}`],
    ...['--export', 'type=nbd,id=export,node-name=active,name=active,writable=on'],
    ...['--chardev', 'stdio,id=qmp', '--monitor', 'chardev=qmp', '--pidfile', pidFile],
  ];
  const child = spawn(program, args, { cwd: directory, stdio: ['pipe', 'pipe', 'inherit'] });
  const gone = new Promise<void>((resolve, reject) => {
    child.on('error', reject);
    child.on('close', () => resolve());
  });
  const messages = new Inbox(child);
  await messages.next((message) => 'QMP' in message);
  const execute = async (execute: string, args: Message): Promise<unknown> => {
    child.stdin.write(`${JSON.stringify({ execute, arguments: args })}\n`);
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

  constructor({ stdout }: ChildProcess) {
    if (stdout === null) throw new TypeError('stdout is not a pipe');
    createInterface({ input: stdout })
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
      if (this.#ended) throw new Error('qemu-storage-daemon ended');
      if (performance.now() > deadline) throw new Error('qemu-storage-daemon does not answer');
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
