import { execFile, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { type ForeignServer, foreignServer } from '@downfold/compliance';

const tools = ['nbdkit', 'qemu-img', 'qemu-io', 'qemu-nbd'];
const missing = tools.filter((tool) => spawnSync(tool, ['--version']).error !== undefined);
if (missing.length > 0) {
  const problem = `not installed: ${missing.join(', ')} (Debian: apt-get install qemu-utils nbdkit)`;
  if (process.env['DOWNFOLD_REQUIRE_QEMU'] === '1')
    throw new Error(`DOWNFOLD_REQUIRE_QEMU=1, but ${problem}`);
  console.warn(`*** SKIPPED: every test with a foreign NBD server: ${problem} ***`);
}

/** Whether other people's NBD servers are here. CI requires them. */
export const havePeers: boolean = missing.length === 0;

/** A directory that goes when the block ends. */
export function scratch(): Disposable & { readonly directory: string; path(name: string): string } {
  const directory = mkdtempSync(join(tmpdir(), 'downfold-storage-nbd-'));
  return {
    directory,
    path: (name) => join(directory, name),
    [Symbol.dispose]: () => rmSync(directory, { recursive: true, force: true }),
  };
}

const execute = promisify(execFile);

/** Runs a tool while this process goes on; resolves with what it prints, rejects with its output when it fails. */
export async function run(tool: string, ...args: readonly string[]): Promise<string> {
  const { stdout } = await execute(tool, args, { timeout: 20_000, maxBuffer: 1 << 26 });
  return stdout;
}

/** nbdkit at a Unix socket: filters and plugin as its arguments say. Resolves with the URI of its default export. */
export async function nbdkit(
  socket: string,
  ...args: readonly string[]
): Promise<ForeignServer & { readonly uri: string }> {
  const server = await foreignServer({ path: socket }, 'nbdkit', '-f', '-U', socket, ...args);
  return {
    uri: `nbd+unix:///?socket=${socket}`,
    process: server.process,
    [Symbol.asyncDispose]: () => server[Symbol.asyncDispose](),
  };
}

/** A port that nobody listens at now. */
function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const address = server.address();
      server.close(() => {
        if (address === null || typeof address === 'string') reject(new Error('no port'));
        else resolve(address.port);
      });
    });
  });
}

/** nbdkit serving every file of a directory by its name, over TCP. */
export async function exportDirectory(
  directory: string,
  ...filters: readonly string[]
): Promise<ForeignServer & { readonly uri: string }> {
  const port = await freePort();
  const where = ['-f', '-i', '127.0.0.1', '-p', String(port)];
  const [flags, settings] = [
    filters.filter((one) => one.startsWith('-')),
    filters.filter((one) => !one.startsWith('-')),
  ];
  const plugin = ['file', `dir=${directory}`];
  const server = await foreignServer(
    { port },
    'nbdkit',
    ...where,
    ...flags,
    ...plugin,
    ...settings,
  );
  return {
    uri: `nbd://127.0.0.1:${port}`,
    process: server.process,
    [Symbol.asyncDispose]: () => server[Symbol.asyncDispose](),
  };
}

/** Bytes that are never the same twice nearby. */
export function pattern(length: number, seed = 1): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(length);
  for (let at = 0; at < length; at++) bytes[at] = (at * 31 + (at >> 8) * 7 + seed) & 0xff;
  return bytes;
}
