import { spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, openSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { readJsonLine, writeJsonLine } from './json-line.ts';

/** Options of a run. */
export interface ToolOptions {
  readonly cwd?: string;
  /** Default: this process's. */
  readonly env?: NodeJS.ProcessEnv;
  /** Milliseconds; a program that takes longer is ended by SIGTERM. Default: none. */
  readonly timeout?: number;
}

/** How a program ended. */
export interface ToolEnd {
  /** Exit code; null when a signal ended it, or when it could not be started. */
  readonly status: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
  /** That it could not be started, or took too long, as an errno code: `ENOENT`, `ETIMEDOUT`. Else null. */
  readonly error: string | null;
}

/** What `tool-starter.ts` is asked to run. */
export interface ToolRequest extends ToolOptions {
  readonly program: string;
  readonly args: readonly string[];
}

/**
 * Runs a program to its end, in pipes, while this process waits. A small process of its own starts it, one for this process's life: fork()
 * copies the page tables of whoever calls it, 10 ms for a test worker of 400 MiB, which then faults once on every page that it writes to.
 */
export function runTool(
  program: string,
  args: readonly string[],
  options: ToolOptions = {},
): ToolEnd {
  starter ??= startStarter();
  const surroundings = { cwd: process.cwd(), env: process.env, ...options };
  const request: ToolRequest = { program, args, ...surroundings };
  writeJsonLine(starter.requests, request);
  const end = readJsonLine<ToolEnd>(starter.answers);
  if (end === null) throw new Error(`the process that starts programs ended before ${program}`);
  return end;
}

/** Runs a program that must succeed; returns what it wrote to stdout. @throws an error with all that it said otherwise */
export function outputOf(
  program: string,
  args: readonly string[],
  options: ToolOptions = {},
): string {
  const { status, signal, error, stdout, stderr } = runTool(program, args, options);
  if (status === 0) return stdout;
  const how = error ?? signal ?? `exit ${status}`;
  throw new Error(`${program} ${args.join(' ')}: ${how}\n${stdout}${stderr}`);
}

/** This process's ends of the pipes to its `tool-starter.ts`, which ends when they are closed, at the latest with this process. */
interface Starter {
  readonly requests: number;
  readonly answers: number;
}

let starter: Starter | null = null;

function startStarter(): Starter {
  const extension = import.meta.url.endsWith('.ts') ? 'ts' : 'js';
  const program = fileURLToPath(new URL(`./tool-starter.${extension}`, import.meta.url));
  const directory = mkdtempSync(join(tmpdir(), 'downfold-starter-'));
  try {
    // named, because whoever reads what Node's own pipes bring cannot wait for it
    const [requests, answers] = [join(directory, 'requests'), join(directory, 'answers')];
    const { status } = spawnSync('mkfifo', [requests, answers]);
    if (status !== 0) throw new Error('mkfifo failed: no named pipes, no way to start programs');
    spawn(process.execPath, [program, requests, answers], { stdio: 'ignore' }).unref();
    return { requests: openSync(requests, 'w'), answers: openSync(answers, 'r') };
  } finally {
    rmSync(directory, { recursive: true });
  }
}
