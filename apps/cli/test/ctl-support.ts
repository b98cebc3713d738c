import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { createServer, type Socket } from 'node:net';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { type Bench, launch, type Started, start } from './support.ts';

/** A job as QEMU tells of it. */
export interface FakeJob {
  readonly id: string;
  readonly status: string;
  readonly [more: string]: unknown;
}

/** As an answer: there is none. */
export const SILENCE: unique symbol = Symbol('no answer');

type Answer = (args: Readonly<Record<string, unknown>>) => unknown;

/** What a server refuses with. */
class Refusal extends Error {
  readonly errorClass: string;

  constructor(errorClass: string, desc: string) {
    super(desc);
    this.errorClass = errorClass;
  }
}

/** A QMP server that says what a test wants, in text that no code of ours has made. */
export class FakeServer implements AsyncDisposable {
  /** Commands that came, but those that change nothing. */
  readonly asked: { readonly execute: string; readonly arguments: unknown }[] = [];
  /** What came last, as it came. */
  lastLine = '';
  greets = true;
  jobs: readonly FakeJob[] = [];
  readonly answers: Record<string, Answer> = {};
  readonly #sockets = new Set<Socket>();
  readonly #server = createServer((socket) => this.#serve(socket));

  /** Listens on `q` in the directory of the bench. */
  static async in(work: Bench): Promise<FakeServer> {
    const fake = new FakeServer();
    await new Promise<void>((done) => fake.#server.listen(work.file('q'), done));
    return fake;
  }

  /** Tells all clients. */
  tell(event: string, data: object): void {
    const timestamp = { seconds: 1_700_000_000, microseconds: 5000 };
    for (const socket of this.#sockets)
      socket.write(`${JSON.stringify({ timestamp, event, data })}\r\n`);
  }

  status(id: string, ...states: readonly string[]): void {
    for (const status of states) this.tell('JOB_STATUS_CHANGE', { id, status });
  }

  /** Cuts all connections. */
  cut(): void {
    for (const socket of this.#sockets) socket.destroy();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.cut();
    await new Promise((done) => this.#server.close(done));
  }

  #serve(socket: Socket): void {
    this.#sockets.add(socket);
    socket.on('close', () => this.#sockets.delete(socket)).on('error', () => {});
    const version = { qemu: { major: 9, minor: 0, micro: 0 }, package: '' };
    if (!this.greets) return;
    socket.write(`${JSON.stringify({ QMP: { version, capabilities: [] } })}\r\n`);
    createInterface({ input: socket })
      .on('error', () => {})
      .on('line', (line) => {
        this.lastLine = line;
        const { execute, arguments: args, id } = JSON.parse(line);
        const answer = this.#answer(execute, args);
        if (!('return' in answer && answer.return === SILENCE))
          socket.write(`${JSON.stringify({ ...answer, id })}\r\n`);
      });
  }

  #answer(execute: string, args: Readonly<Record<string, unknown>>): object {
    if (!/^(query-|qmp_)/.test(execute)) this.asked.push({ execute, arguments: args });
    try {
      return { return: this.#return(execute, args) ?? {} };
    } catch (cause) {
      if (!(cause instanceof Refusal)) throw cause;
      return { error: { class: cause.errorClass, desc: cause.message } };
    }
  }

  #return(execute: string, args: Readonly<Record<string, unknown>>): unknown {
    const answer = this.answers[execute];
    if (answer !== undefined) return answer(args);
    switch (execute) {
      case 'query-jobs':
        return this.jobs.map((job) => ({
          type: 'commit',
          'current-progress': 1 << 20,
          'total-progress': 4 << 20,
          ...job,
        }));
      case 'query-block-jobs':
        return this.jobs.map((job) => ({ device: job.id, speed: 0, 'auto-finalize': true }));
      case 'qmp_capabilities':
        return {};
      default:
        if (execute.startsWith('query'))
          throw new Refusal('CommandNotFound', `The command ${execute} has not been found`);
        return {};
    }
  }
}

/** Runs `downfold ctl ARGS` at the fake server, or at the one on `socket`. */
export function ctl(work: Bench, args: readonly string[], socket = 'q'): Started {
  return start(work, 'ctl', '--socket', socket, ...args);
}

/** Ends a server that a test has started. */
async function endIt(server: Started): Promise<void> {
  server.kill('SIGKILL');
  await server.ended;
}

/** A server, while the block lasts. */
type Running = AsyncDisposable & { readonly server: Started; readonly socket: string };

/** Serves the disk of an image with the built `downfoldd`. */
export async function downfoldd(work: Bench, ...args: readonly string[]): Promise<Running> {
  const bin = fileURLToPath(new URL('../../server/bin/downfoldd.js', import.meta.url));
  if (!existsSync(fileURLToPath(new URL('../../server/dist/main.js', import.meta.url))))
    throw new Error('apps/server/dist/main.js is not there: `pnpm build`');
  const sockets = ['--nbd', 'unix:run/nbd.sock', '--qmp', 'unix:run/qmp.sock'];
  const server = launch(work, process.execPath, bin, ...args, ...sockets);
  await server.said(/^downfoldd: NBD at/m);
  return { server, socket: 'unix:run/qmp.sock', [Symbol.asyncDispose]: () => endIt(server) };
}

/** Whether a real one is here. CI requires it. */
export const haveStorageDaemon: boolean =
  spawnSync('qemu-storage-daemon', ['--version'], { stdio: 'ignore' }).status === 0;
if (!haveStorageDaemon && process.env['DOWNFOLD_REQUIRE_QEMU'] === '1')
  throw new Error('DOWNFOLD_REQUIRE_QEMU=1, but there is no qemu-storage-daemon');

/** Serves a chain of images `NAME.qcow2`, bottom first, with QEMU's own daemon; the nodes are called so. */
export async function storageDaemon(work: Bench, ...names: readonly string[]): Promise<Running> {
  const nodes = names.flatMap((name, index) => [
    '--blockdev',
    `file,node-name=${name}-file,filename=${name}.qcow2`,
    '--blockdev',
    `qcow2,node-name=${name},file=${name}-file${index === 0 ? '' : `,backing=${names[index - 1]}`}`,
  ]);
  const monitor = ['--chardev', 'socket,id=c,path=qsd.sock,server=on,wait=off', '--monitor', 'c'];
  const nbd = ['--nbd-server', 'addr.type=unix,addr.path=qsd-nbd.sock'];
  // what nothing uses QEMU lets go when a snapshot is taken
  const used = ['--export', `nbd,id=e0,node-name=${names.at(-1)},writable=on`];
  const server = launch(work, 'qemu-storage-daemon', ...nodes, ...nbd, ...used, ...monitor);
  while (!existsSync(work.file('qsd.sock'))) await sleep(10);
  return { server, socket: 'qsd.sock', [Symbol.asyncDispose]: () => endIt(server) };
}
