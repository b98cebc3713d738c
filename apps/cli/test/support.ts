import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { defaultPolicy, openChain, viewOf } from '@downfold/chain';
import { runTool } from '@downfold/compliance';
import { qcow2 } from '@downfold/qcow2';
import { raw } from '@downfold/raw';
import type { StorageBackend } from '@downfold/storage';
import { fileBackend } from '@downfold/storage-file';
import { byteLength, guestOffset } from '@downfold/units';

export const backend: StorageBackend = fileBackend();
const here = (path: string): string => fileURLToPath(new URL(path, import.meta.url));

/** The command line as users start it. */
export const BIN: string = here('../bin/downfold.js');

if (!existsSync(here('../dist/main.js')))
  throw new Error(
    'apps/cli/dist/main.js is not there: these tests run what is built; `pnpm build`',
  );

const found = ['qemu-img', 'qemu-io'].every((tool) => runTool(tool, ['--version']).status === 0);
if (!found && process.env['DOWNFOLD_REQUIRE_QEMU'] === '1')
  throw new Error(
    'DOWNFOLD_REQUIRE_QEMU=1, but there is no qemu-img or qemu-io: install qemu-utils',
  );
if (!found) console.warn('NO qemu-img: tests that compare with it are skipped');

/** Whether QEMU's tools are here to compare with. CI requires them. */
export const haveQemu: boolean = found;

/** cryptsetup is a judge as well, where somebody installed it. */
export const haveCryptsetup: boolean = runTool('cryptsetup', ['--version']).status === 0;

/** Whether util-linux's `script` is here, which makes a terminal. */
export const haveScript: boolean = runTool('script', ['--version']).status === 0;

/** Environment of every start: nothing of the tester's own taste. */
const ENVIRONMENT = {
  ...process.env,
  LC_ALL: 'C',
  NODE_EXTRA_CA_CERTS: undefined,
  NODE_OPTIONS: undefined,
  NO_COLOR: undefined,
  FORCE_COLOR: undefined,
  DOWNFOLD_DEBUG: undefined,
  DOWNFOLD_QMP: undefined,
};

/** How a process ended. */
export interface Ended {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** A directory that goes when the block ends, in which programs are run. */
export interface Bench extends Disposable {
  readonly path: string;
  file(name: string): string;
  /** Runs `downfold ARGS` there, in pipes. */
  downfold(...args: readonly string[]): Ended;
  /** Runs `downfold ARGS`, which must succeed, and reads its JSON. */
  json<T = Record<string, unknown>>(...args: readonly string[]): T;
  /** Runs any other program there. */
  run(program: string, ...args: readonly string[]): Ended;
  /** As `run`; throws with what it said unless it succeeds. */
  must(program: string, ...args: readonly string[]): string;
  /** SHA-256 of every file, and its time of change, by name. */
  digest(): Readonly<Record<string, string>>;
}

/** Makes a directory to work in. */
export function bench(): Bench {
  const path = mkdtempSync(join(tmpdir(), 'downfold-cli-'));
  const run = (program: string, ...args: readonly string[]): Ended => {
    const { status, stdout, stderr, error } = runTool(program, args, {
      cwd: path,
      env: ENVIRONMENT,
      timeout: 60_000,
    });
    if (error !== null) throw new Error(`${program}: ${error}`);
    return { code: status, stdout, stderr };
  };
  const must = (program: string, ...args: readonly string[]): string => {
    const ended = run(program, ...args);
    if (ended.code === 0) return ended.stdout;
    throw new Error(`${program} ${args.join(' ')}: ${ended.code}\n${ended.stdout}${ended.stderr}`);
  };
  return {
    path,
    file: (name) => join(path, name),
    run,
    must,
    downfold: (...args) => run(process.execPath, BIN, ...args),
    json: <T>(...args: readonly string[]) =>
      JSON.parse(must(process.execPath, BIN, ...args, '--output', 'json')) as T,
    digest: () =>
      Object.fromEntries(
        readdirSync(path)
          .sort()
          .map((name) => [
            name,
            createHash('sha256')
              .update(readFileSync(join(path, name)))
              .digest('hex'),
          ]),
      ),
    [Symbol.dispose]: () => rmSync(path, { recursive: true, force: true }),
  };
}

/** A started program, while it runs. */
export interface Started {
  readonly pid: number;
  /** Resolves once stderr holds a match. Rejects when it ends before. */
  said(pattern: RegExp): Promise<void>;
  readonly ended: Promise<Ended>;
  kill(signal: NodeJS.Signals): void;
}

/** Starts `downfold ARGS` and does not wait for its end. */
export function start(work: Bench, ...args: readonly string[]): Started {
  return launch(work, process.execPath, BIN, ...args);
}

/** Starts any other program, and does not wait for its end. */
export function launch(work: Bench, program: string, ...args: readonly string[]): Started {
  const child = spawn(program, args, { cwd: work.path, env: ENVIRONMENT });
  let [stdout, stderr] = ['', ''];
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    stdout += text;
  });
  const listeners = new Set<() => void>();
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
    for (const listener of listeners) listener();
  });
  const ended = new Promise<Ended>((resolve) =>
    child.on('close', (code) => resolve({ code, stdout, stderr })),
  );
  return {
    pid: child.pid ?? 0,
    ended,
    kill: (signal) => child.kill(signal),
    said: (pattern) =>
      new Promise((resolve, reject) => {
        const look = (): void => {
          if (pattern.test(stderr)) resolve();
        };
        listeners.add(look);
        look();
        void ended.then(({ code }) => reject(new Error(`ended with ${code}: ${stdout}${stderr}`)));
      }),
  };
}

/** Does something while a started program stands still: however long it takes, the program is not over. */
export function whileStill<T>(job: Started, work: () => T): T {
  job.kill('SIGSTOP');
  try {
    return work();
  } finally {
    job.kill('SIGCONT');
  }
}

const MIB = 1 << 20;

/** Which MiB of the disk each image of a chain holds, bottom first. */
export type ChainSpec = readonly { readonly name: string; readonly mebibytes: readonly number[] }[];

/** base <- mid <- top <- active: between base and top all four allocation cases occur. */
const CHAIN: ChainSpec = [
  { name: 'base', mebibytes: [0, 1, 2] },
  { name: 'mid', mebibytes: [1, 2, 3] },
  { name: 'top', mebibytes: [2, 4] },
  { name: 'active', mebibytes: [5] },
];

/** Makes a chain of images `NAME.qcow2`, without QEMU, so that these tests run on every machine. */
export async function makeChain(
  work: Bench,
  spec: ChainSpec = CHAIN,
  mebibytes = 8,
): Promise<void> {
  for (const [index, { name, mebibytes: held }] of spec.entries())
    await makeImage(work, `${name}.qcow2`, {
      layer: index + 1,
      held,
      mebibytes,
      below: index === 0 ? null : `${spec[index - 1]?.name}.qcow2`,
    });
}

/** Makes one image on top of another. */
export async function makeImage(
  work: Bench,
  name: string,
  image: {
    readonly layer: number;
    readonly held: readonly number[];
    readonly mebibytes: number;
    readonly below: string | null;
  },
): Promise<void> {
  const storage = await backend.create(work.file(name), { secret: false });
  const backing = image.below === null ? null : { name: image.below, format: 'qcow2' };
  const virtualSize = byteLength(image.mebibytes * MIB);
  await using open = await qcow2.create(storage, { virtualSize, backing });
  // whole clusters: nothing has to be filled up from below
  for (const at of image.held)
    await open.write(guestOffset(at * MIB), contentOf(image.layer, at), { fill: null });
  await open.flush();
}

/** What a layer holds in a MiB: like no other MiB. */
function contentOf(layer: number, at: number): Buffer {
  return Buffer.alloc(MIB, `layer ${layer}, MiB ${at}; `);
}

/** SHA-256 of what a guest reads from the disk of an image; marked ones too. */
export async function diskOf(work: Bench, name: string): Promise<string> {
  const policy = { ...defaultPolicy, allowMarked: true };
  const environment = { backend, formats: [qcow2, raw], policy };
  await using chain = await openChain(work.file(name), 'qcow2', environment);
  const top = chain.layers.length - 1;
  const size = chain.layers[top]?.image.geometry.virtualSize ?? 0;
  const bytes = Buffer.alloc(size);
  await viewOf(chain.layers, top)(guestOffset(0), bytes);
  return createHash('sha256').update(bytes).digest('hex');
}

/** Whether the metadata of an image is without error and without leak. */
export async function isClean(work: Bench, name: string): Promise<boolean> {
  const storage = await backend.open(work.file(name), 'read');
  await using image = await qcow2.open(storage, { mode: 'read' });
  const { corruptions, leaks } = await image.check();
  return corruptions === 0 && leaks === 0;
}

/** The backing file that an image names. */
export async function backingOf(work: Bench, name: string): Promise<string | undefined> {
  const storage = await backend.open(work.file(name), 'read');
  await using image = await qcow2.open(storage, { mode: 'read' });
  return image.backing?.name;
}
