import { spawn } from 'node:child_process';
import { createReadStream, statSync } from 'node:fs';
import { createServer } from 'node:http';
import { connect } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

const MOST_TRIES = 500;

/** A foreign NBD server in the foreground, listening at the Unix socket `path`; it goes when the block ends. */
export async function nbdServer(
  path: string,
  tool: 'nbdkit' | 'qemu-nbd',
  ...args: readonly string[]
): Promise<AsyncDisposable> {
  const child = spawn(tool, args, { stdio: ['ignore', 'ignore', 'pipe'] });
  let said = '';
  child.stderr.on('data', (text) => {
    said += text;
  });
  const ended = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  for (let tries = 0; !(await greets(path)); tries++) {
    if (child.exitCode !== null || tries > MOST_TRIES) {
      child.kill('SIGKILL');
      throw new Error(`${tool} does not listen: ${said}`);
    }
    await sleep(10);
  }
  return {
    async [Symbol.asyncDispose]() {
      child.kill('SIGTERM');
      await ended;
    },
  };
}

function greets(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path);
    socket.once('error', () => resolve(false));
    socket.once('data', () => {
      socket.destroy();
      resolve(true);
    });
  });
}

/** One file over HTTP, with ranges; it goes when the block ends. */
export async function httpServer(
  file: string,
): Promise<AsyncDisposable & { readonly url: string }> {
  const { size, mtimeMs } = statSync(file);
  const server = createServer(({ headers, url }, response) => {
    const [start = 0, end = 0] = (headers.range ?? '').match(/\d+/g)?.map(Number) ?? [];
    if (url !== '/disk') return void response.writeHead(404).end();
    const last = Math.min(end, size - 1);
    const range = `bytes ${start}-${last}/${size}`;
    response.writeHead(206, { etag: `"${mtimeMs}"`, 'content-range': range });
    createReadStream(file, { start, end: last }).pipe(response);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('no port');
  return {
    url: `http://127.0.0.1:${address.port}/disk`,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
