import { spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { type Duplex, duplexPair } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { seededRandom } from '@downfold/compliance';
import { type Commands, type Events, QmpServer, type ServerOptions } from '../src/index.ts';

const tools = ['qemu-storage-daemon', 'qemu-img'];
const absent = tools.filter((tool) => spawnSync(tool, ['--version']).status !== 0);
if (absent.length > 0 && process.env['DOWNFOLD_REQUIRE_QEMU'] === '1')
  throw new Error(`DOWNFOLD_REQUIRE_QEMU=1, but there is no ${absent}: install qemu-utils`);
if (absent.length > 0)
  console.warn(`NO ${absent}: the foreign judge is absent, its tests are skipped`);

/** Whether QEMU is here to judge. CI requires it. */
export const haveQemu: boolean = absent.length === 0;

/** Numbers from 0 up to `below`, the same for the same seed. */
export function numbers(seed: number): (below: number) => number {
  const random = seededRandom(seed);
  return (below) => Math.floor(random() * below);
}

/** A directory that goes when the block ends. */
export function scratch(): Disposable & { path(name?: string): string } {
  const directory = mkdtempSync(join(tmpdir(), 'downfold-qmp-'));
  return {
    path: (name = '') => join(directory, name),
    [Symbol.dispose]: () => rmSync(directory, { recursive: true, force: true }),
  };
}

/** A storage daemon with a QMP socket; it goes when the block ends. */
export async function daemon(socket: string, ...args: readonly string[]): Promise<AsyncDisposable> {
  const child = spawn(
    'qemu-storage-daemon',
    [
      '--chardev',
      `socket,id=c,path=${socket},server=on,wait=off`,
      '--monitor',
      'chardev=c',
      ...args,
    ],
    { stdio: 'inherit', cwd: dirname(socket) },
  );
  const exited = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  for (let wait = 0; !existsSync(socket); wait++) {
    if (wait > 500 || child.exitCode !== null) throw new Error('qemu-storage-daemon did not start');
    await sleep(10);
  }
  return {
    [Symbol.asyncDispose]: async () => {
      child.kill();
      await exited;
    },
  };
}

/** Reads and writes lines on one end of a stream. */
export class Wire implements AsyncDisposable {
  readonly stream: Duplex;
  #text = '';
  #wake = Promise.withResolvers<void>();
  #ended = false;

  constructor(stream: Duplex) {
    this.stream = stream;
    stream.on('data', (chunk: Buffer) => {
      this.#text += chunk.toString('latin1');
      this.#wake.resolve();
    });
    for (const end of ['end', 'close', 'error'])
      stream.on(end, () => {
        this.#ended = true;
        this.#wake.resolve();
      });
  }

  static connect(path: string): Wire {
    return new Wire(net.connect(path));
  }

  send(...parts: readonly (string | Uint8Array)[]): void {
    for (const part of parts) this.stream.write(part);
  }

  /** The next line without its end, or `null` once there is none. */
  async line(): Promise<string | null> {
    for (;;) {
      const end = this.#text.indexOf('\r\n');
      if (end >= 0) {
        const line = this.#text.slice(0, end);
        this.#text = this.#text.slice(end + 2);
        return line;
      }
      if (this.#ended) return null;
      await this.#wake.promise;
      this.#wake = Promise.withResolvers();
    }
  }

  /** The next line, as JSON. */
  async message(): Promise<unknown> {
    const line = await this.line();
    return line === null ? null : JSON.parse(line);
  }

  /** Sends a line and reads one. */
  async ask(line: string): Promise<unknown> {
    this.send(`${line}\n`);
    return await this.message();
  }

  /** Negotiates. */
  async negotiate(): Promise<void> {
    await this.line();
    await this.ask('{"execute": "qmp_capabilities"}');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.stream.destroy();
  }
}

const VERSION = { qemu: { major: 7, minor: 2, micro: 22 }, package: 'test' };

/** A server for tests; a fault of a command fails the test unless it says what is to be done. */
export function serverOf<E extends Events>(
  options: Partial<ServerOptions<E>> & { readonly commands?: Commands; readonly events?: E } = {},
): QmpServer<E> {
  return new QmpServer<E>({
    version: VERSION,
    commands: {},
    events: {} as E,
    onFault: (fault) => {
      throw fault;
    },
    ...options,
  });
}

/** The client's end of a new session, and how the session ended. */
export function sessionOf(server: QmpServer<never> | QmpServer): {
  readonly wire: Wire;
  readonly over: Promise<Error | null>;
} {
  const [ours, theirs] = duplexPair();
  return { over: server.serve(ours), wire: new Wire(theirs) };
}
