import { spawn, spawnSync } from 'node:child_process';
import {
  closeSync,
  existsSync,
  mkdtempSync,
  openSync,
  readSync,
  rmSync,
  statSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { DataFileLocks } from '@downfold/chain';
import { qcow2 } from '@downfold/qcow2';
import { connectQmp, type QmpClient, type QmpEvent } from '@downfold/qmp';
import { fileBackend } from '@downfold/storage-file';
import { byteLength, guestOffset } from '@downfold/units';
import type { Access } from '../src/environment.ts';
import { ImageSecrets } from '../src/graph/image-secrets.ts';
import { Objects } from '../src/options/objects.ts';

const here = (path: string): string => fileURLToPath(new URL(path, import.meta.url));

/** The server as users start it. */
export const BIN: string = here('../bin/downfoldd.js');

if (!existsSync(here('../dist/main.js')))
  throw new Error(
    'apps/server/dist/main.js is not there: these tests run what is built; `pnpm build`',
  );

/** Whether programs that judge or drive the server are here; said aloud when not, and an error in CI. */
export function haveAll(...programs: readonly string[]): boolean {
  const missing = programs.filter(
    (program) => spawnSync('sh', ['-c', `command -v ${program}`], { stdio: 'ignore' }).status !== 0,
  );
  if (missing.length === 0) return true;
  if (process.env['DOWNFOLD_REQUIRE_QEMU'] === '1')
    throw new Error(`DOWNFOLD_REQUIRE_QEMU=1, but there is no ${missing.join(', ')}`);
  console.warn(`NO ${missing.join(', ')}: tests that need it are skipped`);
  return false;
}

/** Whether QEMU's and libnbd's tools are here to judge. */
export const haveTools: boolean = haveAll('qemu-img', 'qemu-io', 'nbdinfo', 'nbdcopy');

export const MIB: number = 1 << 20;

const ENVIRONMENT = {
  ...process.env,
  LC_ALL: 'C',
  NODE_EXTRA_CA_CERTS: undefined,
  NODE_OPTIONS: undefined,
  DOWNFOLD_DEBUG: undefined,
};

/** How a process ended. */
export interface Ended {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** A directory that goes when the block ends, with all servers that were started in it. */
export class Bench implements AsyncDisposable {
  readonly path: string = mkdtempSync(join(tmpdir(), 'downfoldd-'));
  readonly #environment: NodeJS.ProcessEnv;
  readonly #started: Started[] = [];

  /** @param environment of every process, besides what this process has */
  constructor(environment: NodeJS.ProcessEnv = {}) {
    this.#environment = environment;
  }

  file(name: string): string {
    return join(this.path, name);
  }

  /** Runs another program there and waits for it. */
  run(program: string, ...args: readonly string[]): Promise<Ended> {
    return this.program(program, ...args).ended;
  }

  /** Starts another program there. */
  program(program: string, ...args: readonly string[]): Started {
    return this.#start(program, args);
  }

  /** As `run`; throws with what it said unless it succeeds. */
  async must(program: string, ...args: readonly string[]): Promise<string> {
    const { code, stdout, stderr } = await this.run(program, ...args);
    if (code === 0) return stdout;
    throw new Error(`${program} ${args.join(' ')}: ${code}\n${stdout}${stderr}`);
  }

  /** Runs `downfoldd ARGS`, and does not wait. */
  start(args: readonly string[], environment: NodeJS.ProcessEnv = {}): Started {
    return this.#start(process.execPath, [BIN, ...args], environment);
  }

  /** Runs `downfoldd ARGS`, which serves NBD, QMP or both, until it does. */
  async serve(...args: readonly string[]): Promise<Started> {
    const server = this.start(args);
    await server.said(/^(downfoldd: |.*"message":")(serving|NBD at|QMP at)/m);
    return server;
  }

  /** Serves a disk in the short form, and connects to its QMP socket. */
  async disk(file: string, ...args: readonly string[]): Promise<Served> {
    const server = await this.serve(
      file,
      '--nbd',
      'unix:run/nbd.sock',
      '--qmp',
      'unix:run/qmp.sock',
      ...args,
    );
    return new Served(server, await connectQmp(this.file('run/qmp.sock')));
  }

  get uri(): string {
    return `nbd+unix:///?socket=${this.file('run/nbd.sock')}`;
  }

  /** Permission bits of a file. */
  mode(name: string): string {
    return (statSync(this.file(name)).mode & 0o7777).toString(8);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const one of this.#started) one.kill('SIGKILL');
    await Promise.all(this.#started.map(({ ended }) => ended));
    rmSync(this.path, { recursive: true, force: true });
  }

  #start(program: string, args: readonly string[], environment: NodeJS.ProcessEnv = {}): Started {
    const started = new Started(program, args, this.path, { ...this.#environment, ...environment });
    this.#started.push(started);
    return started;
  }
}

/** A process while it runs. */
export class Started {
  readonly pid: number;
  readonly ended: Promise<Ended>;
  readonly kill: (signal: NodeJS.Signals) => void;
  #stderr = '';
  readonly #heard: Set<() => void> = new Set();

  constructor(
    program: string,
    args: readonly string[],
    cwd: string,
    environment: NodeJS.ProcessEnv,
  ) {
    const child = spawn(program, args, {
      cwd,
      env: { ...ENVIRONMENT, ...environment },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    this.pid = child.pid ?? 0;
    this.kill = (signal) => void child.kill(signal);
    let stdout = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      stdout += text;
    });
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      this.#stderr += text;
      for (const hear of this.#heard) hear();
    });
    this.ended = new Promise((resolve, reject) => {
      child.on('error', reject);
      child.on('close', (code) => resolve({ code, stdout, stderr: this.#stderr }));
    });
  }

  get stderr(): string {
    return this.#stderr;
  }

  /** Resolves once stderr holds a match. Rejects when the process ends before. */
  said(pattern: RegExp): Promise<void> {
    return new Promise((resolve, reject) => {
      const look = (): void => {
        if (pattern.test(this.#stderr)) resolve();
      };
      this.#heard.add(look);
      look();
      void this.ended.then(({ code }) =>
        reject(new Error(`ended with ${code} before it said ${pattern}: ${this.#stderr}`)),
      );
    });
  }
}

/** A server with a QMP client. */
export class Served {
  readonly server: Started;
  readonly qmp: QmpClient;
  readonly #events: AsyncIterableIterator<QmpEvent>;

  constructor(server: Started, qmp: QmpClient) {
    this.server = server;
    this.qmp = qmp;
    this.#events = qmp.events();
  }

  execute<T = unknown>(name: string, args: object = {}): Promise<T> {
    return this.qmp.execute(name, args) as Promise<T>;
  }

  /** Events up to and with the first one that `last` describes: names, or `STATE` for a JOB_STATUS_CHANGE. */
  async until(last: string): Promise<readonly string[]> {
    const names: string[] = [];
    for (;;) {
      const { value, done } = await this.#events.next();
      if (done === true) throw new Error(`no ${last} after ${names.join(' ')}`);
      names.push(nameOf(value));
      if (names.at(-1) === last) return names;
    }
  }

  /** The next event, whole. */
  async next(): Promise<QmpEvent> {
    return (await this.#events.next()).value as QmpEvent;
  }

  /** Ends the server as a supervisor does. */
  async stop(): Promise<Ended> {
    this.server.kill('SIGTERM');
    return this.server.ended;
  }

  /** Ends it as a power switch does, as far as processes are concerned. */
  async kill(): Promise<void> {
    this.server.kill('SIGKILL');
    await this.server.ended;
  }
}

function nameOf({ event, data }: QmpEvent): string {
  const { status, error } = (data ?? {}) as { readonly status?: string; readonly error?: string };
  if (status !== undefined) return status;
  return error === undefined ? event : `${event} with error`;
}

/** A server with a QMP socket, `qmp.sock`, and nodes and exports as its options say; the same words for both. */
export async function serve(
  bench: Bench,
  whose: Whose,
  ...more: readonly string[]
): Promise<Served> {
  const options = [
    ...['--nbd-server', `addr.type=unix,addr.path=${bench.file('nbd.sock')}`],
    ...['--chardev', `socket,id=c,path=${bench.file('qmp.sock')},server=on,wait=off`],
    ...['--monitor', 'c'],
    ...more,
  ];
  const server =
    whose === 'us'
      ? await bench.serve(...options)
      : bench.program('qemu-storage-daemon', ...options);
  while (!existsSync(bench.file('qmp.sock'))) await sleep(10);
  return new Served(server, await connectQmp(bench.file('qmp.sock')));
}

export type Whose = 'QEMU' | 'us';
/** Who is asked: QEMU's daemon as well, where it is. */
export const WHOSE: readonly Whose[] = haveAll('qemu-storage-daemon') ? ['QEMU', 'us'] : ['us'];

/** The arguments that make a file the disk `disk`. @param more further arguments of its node, as `read-only=on` */
export function asDisk(bench: Bench, file: string, ...more: readonly string[]): readonly string[] {
  const node = ['qcow2', 'node-name=disk', ...more, 'file.driver=file'];
  return ['--blockdev', `${node.join(',')},file.filename=${bench.file(file)}`];
}

export const WRITABLE: readonly string[] = ['--export', 'nbd,id=e,node-name=disk,writable=on'];

/** Bytes of a file that are locked. */
export type Bytes = readonly number[];

/** What who reads an image locks of it, and who writes it; QEMU's. */
export const LOCKS: Readonly<Record<'NONE' | 'READER' | 'WRITER', Bytes>> = {
  NONE: [],
  READER: [100, 201, 203],
  WRITER: [100, 101, 103, 201, 203],
};

/** Which bytes of a file are locked by anybody, looked at by Perl. */
export async function lockedBytes(bench: Bench, file: string): Promise<Bytes> {
  const look = `use Fcntl; open(F, "+<", $ARGV[0]) or die;
    for my $byte (0 .. 319) {
      my $lock = pack("s s x4 q q i x4", F_WRLCK, 0, $byte, 1, 0);
      fcntl(F, 36, $lock) or die; # F_OFD_GETLK
      print "$byte " if unpack("s", $lock) != F_UNLCK;
    }`;
  if (!existsSync(bench.file(file))) return LOCKS.NONE;
  const said = await bench.must('perl', '-e', look, bench.file(file));
  return said.split(' ').filter(Boolean).map(Number);
}

/** A server whose files cannot grow past `bytes`, as on a disk that is full: EFBIG counts as no space. */
export async function cramped(bench: Bench, ...more: readonly string[]): Promise<Served> {
  const command = `trap '' XFSZ; exec "$@"`;
  const args = [BIN, 'top.qcow2', '--qmp', 'unix:run/qmp.sock', ...more];
  const server = bench.program('sh', '-c', command, 'sh', process.execPath, ...args);
  await server.said(/QMP at/);
  return new Served(server, await connectQmp(bench.file('run/qmp.sock')));
}

/** How far the files of a cramped server can grow. */
export function limit(served: Served, bytes: number | 'unlimited'): void {
  const { status, stderr } = spawnSync('prlimit', [
    `--pid=${served.server.pid}`,
    `--fsize=${bytes}:unlimited`,
  ]);
  if (status !== 0) throw new Error(String(stderr));
}

/** The safe default, as a server that was told nothing has it. */
export function access(): Access {
  return {
    allow: [],
    lock: 'auto',
    allowDataFile: false,
    secrets: new ImageSecrets(new Objects()),
    dataFileLocks: new DataFileLocks(),
  };
}

/** Which MiB each image of a chain holds, bottom first; the disk has 16. */
export type ChainSpec = Readonly<Record<string, readonly number[]>>;

export const CHAIN: ChainSpec = {
  base: [0, 1, 2, 3],
  mid: [1, 2, 4, 5],
  top: [2, 6],
};

/** Makes images `NAME.qcow2`, each on the one before. What a layer holds in a MiB is like nothing else. */
export async function makeChain(
  bench: Bench,
  spec: ChainSpec = CHAIN,
  mebibytes = 16,
): Promise<void> {
  const backend = fileBackend();
  const virtualSize = byteLength(mebibytes * MIB);
  let below: string | null = null;
  for (const [name, held] of Object.entries(spec)) {
    const storage = await backend.create(bench.file(`${name}.qcow2`), { secret: false });
    const backing: { name: string; format: string } | null =
      below === null ? null : { name: `${below}.qcow2`, format: 'qcow2' };
    await using image = await qcow2.create(storage, { virtualSize, backing });
    for (const at of held)
      await image.write(guestOffset(at * MIB), bytesOf(name, at), { fill: null });
    await image.flush();
    below = name;
  }
}

/** Has the refcount table of a qcow2 say that nothing of it is used. */
export function damage(bench: Bench, file: string): void {
  const image = openSync(bench.file(file), 'r+');
  const table = Buffer.alloc(8);
  readSync(image, table, 0, 8, 48);
  writeSync(image, Buffer.alloc(8), 0, 8, Number(table.readBigUInt64BE()));
  closeSync(image);
}

/** What a layer holds in a MiB. */
export function bytesOf(layer: string, mebibyte: number): Buffer {
  return Buffer.alloc(MIB, `${layer}, MiB ${mebibyte}; `);
}

/** What the disk of a chain shows, before anybody wrote to it. */
export function contentOf(spec: ChainSpec = CHAIN, mebibytes = 16): Buffer {
  const disk = Buffer.alloc(mebibytes * MIB);
  for (const [name, held] of Object.entries(spec))
    for (const at of held) bytesOf(name, at).copy(disk, at * MIB);
  return disk;
}
