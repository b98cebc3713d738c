import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { outputOf, runTool } from '@downfold/compliance';

/** Says aloud what is missing; an error where CI requires it. */
function haveAll(what: string, packages: string, missing: readonly string[]): boolean {
  if (missing.length === 0) return true;
  const problem = `not installed: ${missing.join(', ')} (Debian: apt-get install ${packages})`;
  if (process.env['DOWNFOLD_REQUIRE_QEMU'] === '1')
    throw new Error(`DOWNFOLD_REQUIRE_QEMU=1, but ${problem}`);
  console.warn(`*** SKIPPED: every test with ${what}: ${problem} ***`);
  return false;
}

const tools = ['nbdinfo', 'nbdcopy', 'nbdkit', 'qemu-img', 'qemu-io', 'qemu-nbd', 'openssl'];

/** Whether other people's NBD clients and servers are here. CI requires them. */
export const havePeers: boolean = haveAll(
  'a foreign NBD client or server',
  'qemu-utils libnbd-bin nbdkit openssl',
  tools.filter((tool) => runTool(tool, ['--version']).error !== null),
);

/** libnbd's Python shell, with the system's Python: no other has the module. */
const SHELL = ['env', 'PATH=/usr/bin:/bin', 'nbdsh'] as const;

/** Whether it is here. */
export const haveShell: boolean = haveAll(
  "libnbd's shell",
  'python3-libnbd',
  runTool(SHELL[0], [...SHELL.slice(1), '--version']).status === 0 ? [] : ['nbdsh'],
);

/** What a script for nbdsh prints, line by line. In it `h` is connected to `uri`, with all contexts that the server has. */
export async function nbdsh(uri: string, script: string): Promise<readonly string[]> {
  const [env, ...shell] = SHELL;
  const printed = await run(env, ...shell, '--base-allocation', '--uri', uri, '--command', script);
  return printed.split('\n').slice(0, -1);
}

/** A directory that goes when the block ends. */
export function scratch(): Disposable & { path(name: string): string } {
  const directory = mkdtempSync(join(tmpdir(), 'downfold-nbd-'));
  return {
    path: (name) => join(directory, name),
    [Symbol.dispose]: () => rmSync(directory, { recursive: true, force: true }),
  };
}

const execute = promisify(execFile);

/** Runs a tool while this process goes on serving; resolves with what it prints, rejects with its output when it fails. */
export async function run(tool: string, ...args: readonly string[]): Promise<string> {
  const { stdout } = await execute(tool, args, { timeout: 20_000, maxBuffer: 1 << 26 });
  return stdout;
}

/** Runs a tool that must end before anything else happens. */
export function runSync(tool: string, ...args: readonly string[]): string {
  return outputOf(tool, args);
}
