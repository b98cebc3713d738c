// Started by `process.ts`: runs the programs that it asks for, as many at once as it likes.
import { spawn } from 'node:child_process';

/** What is to be run. */
export interface Request {
  readonly id: number;
  readonly program: string;
  readonly args: readonly string[];
  readonly cwd: string;
  readonly env: NodeJS.ProcessEnv;
  /** Milliseconds. */
  readonly timeout: number;
}

/** How a process ended. */
export interface Ended {
  /** Exit code; null when a signal ended it. */
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** How it ended, or why it could not be started. */
export interface Answer {
  readonly id: number;
  readonly ended: Ended | null;
  readonly problem: string;
}

process.on('message', (request: Request) => {
  const { id } = request;
  start(request).then(
    (ended) => answer({ id, ended, problem: '' }),
    (cause) => answer({ id, ended: null, problem: String(cause) }),
  );
});

function answer(answered: Answer): void {
  process.send?.(answered);
}

function start({ program, args, cwd, env, timeout }: Request): Promise<Ended> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, {
      cwd,
      env,
      stdio: ['ignore', 'pipe', 'pipe'],
      timeout,
      killSignal: 'SIGKILL',
    });
    let stdout = '';
    let stderr = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      stdout += text;
    });
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      stderr += text;
    });
    child.on('error', reject);
    child.on('close', (code, signal) => resolve({ code, signal, stdout, stderr }));
  });
}
