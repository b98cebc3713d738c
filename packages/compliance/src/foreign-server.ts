import { type ChildProcess, spawn } from 'node:child_process';
import { connect } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

/** Where a server listens: a Unix socket, or a port of this machine. */
export type ServerPlace = { readonly path: string } | { readonly port: number };

/** A server of somebody else, in the foreground; it ends when it is disposed of. */
export interface ForeignServer extends AsyncDisposable {
  readonly process: ChildProcess;
}

/** Tries, 10 ms apart, until a server that has not greeted is given up. */
const MOST_TRIES = 500;

/** Starts a server and waits until it greets whoever connects at `where`. @throws an error with what it said when it does not */
export async function foreignServer(
  where: ServerPlace,
  tool: string,
  ...args: readonly string[]
): Promise<ForeignServer> {
  const child = spawn(tool, args, { stdio: ['ignore', 'ignore', 'pipe'] });
  let said = '';
  child.stderr.on('data', (text) => {
    said += text;
  });
  const ended = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  for (let tries = 0; !(await greets(where)); tries++) {
    if (child.exitCode !== null || tries > MOST_TRIES) {
      child.kill('SIGKILL');
      throw new Error(`${tool} does not listen: ${said}`);
    }
    await sleep(10);
  }
  return {
    process: child,
    async [Symbol.asyncDispose]() {
      child.kill('SIGTERM');
      await ended;
    },
  };
}

function greets(where: ServerPlace): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = 'path' in where ? connect(where.path) : connect(where.port, '127.0.0.1');
    socket.once('error', () => resolve(false));
    socket.once('close', () => resolve(false));
    socket.once('data', () => {
      socket.destroy();
      resolve(true);
    });
  });
}
