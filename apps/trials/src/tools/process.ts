import { type ChildProcess, fork } from 'node:child_process';
import type { Answer, Ended, Request } from './starter.ts';

export type { Ended };

/** Options of a process. */
export interface RunOptions {
  readonly cwd?: string;
  readonly env?: Readonly<Record<string, string | undefined>>;
  /** Milliseconds; a process that takes longer is killed, by SIGKILL. Default two minutes. */
  readonly timeout?: number;
}

const DEFAULT_TIMEOUT = 120_000;

/**
 * Runs a program to its end, whatever its exit code. Rejects only when it cannot be started. It is started by a small process of its own, one
 * for this process's life: fork() copies the page tables of whoever calls it, 5 to 15 ms for a trial that holds images in memory.
 */
export function run(
  program: string,
  args: readonly string[],
  options: RunOptions = {},
): Promise<Ended> {
  const { cwd = process.cwd(), timeout = DEFAULT_TIMEOUT } = options;
  const env = { ...process.env, LC_ALL: 'C', ...options.env };
  const asked = Promise.withResolvers<Ended>();
  const id = nextId++;
  waiting.set(id, asked);
  starter ??= startStarter();
  starter.channel?.ref();
  const request: Request = { id, program, args, cwd, env, timeout };
  starter.send(request);
  return asked.promise;
}

/** Runs a program that must succeed. Rejects with its output otherwise. */
export async function must(
  program: string,
  args: readonly string[],
  options: RunOptions = {},
): Promise<string> {
  const ended = await run(program, args, options);
  if (ended.code === 0) return ended.stdout;
  const how = ended.code === null ? `signal ${ended.signal}` : `exit ${ended.code}`;
  throw new Error(`${program} ${args.join(' ')}: ${how}\n${ended.stdout}${ended.stderr}`);
}

let starter: ChildProcess | null = null;
let nextId = 0;
/** Who waits for an end, by the number of the request. */
const waiting = new Map<number, PromiseWithResolvers<Ended>>();

/** Starts `starter.ts`, which ends with this process. It keeps this process alive only while somebody waits. */
function startStarter(): ChildProcess {
  const child = fork(new URL('./starter.ts', import.meta.url), { execArgv: [] });
  child.unref();
  child.on('message', ({ id, ended, problem }: Answer) => {
    const asked = waiting.get(id);
    waiting.delete(id);
    if (waiting.size === 0) child.channel?.unref();
    if (ended === null) asked?.reject(new Error(problem));
    else asked?.resolve(ended);
  });
  child.on('exit', () => {
    for (const asked of waiting.values())
      asked.reject(new Error('the process that starts programs has ended'));
  });
  return child;
}
