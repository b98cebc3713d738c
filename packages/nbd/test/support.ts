import { execFile, execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';

const tools = ['nbdinfo', 'nbdcopy', 'nbdkit', 'qemu-img', 'qemu-io', 'qemu-nbd', 'openssl'];
const missing = tools.filter((tool) => spawnSync(tool, ['--version']).error !== undefined);
if (missing.length > 0) {
  const problem = `not installed: ${missing.join(', ')} (Debian: apt-get install qemu-utils libnbd-bin nbdkit openssl)`;
  if (process.env['DOWNFOLD_REQUIRE_QEMU'] === '1')
    throw new Error(`DOWNFOLD_REQUIRE_QEMU=1, but ${problem}`);
  console.warn(`*** SKIPPED: every test with a foreign NBD client or server: ${problem} ***`);
}

/** Whether other people's NBD clients and servers are here. CI requires them. */
export const havePeers: boolean = missing.length === 0;

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
  return execFileSync(tool, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
}
