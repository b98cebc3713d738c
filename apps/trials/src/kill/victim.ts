import { type ChildProcess, spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { CLI, downfold } from '../tools/cli.ts';
import { watchJournal } from './journal-file.ts';

/**
 * When a process is killed: some time after its start, some time after its journal appeared, or as a thread of it enters its n-th
 * such system call.
 */
export type Moment =
  | { readonly kind: 'time'; readonly milliseconds: number }
  | { readonly kind: 'journal'; readonly journal: string; readonly milliseconds: number }
  | { readonly kind: 'call'; readonly call: string; readonly when: number };

/** What became of it. */
export interface Victim {
  /** False: it ended before its moment came. */
  readonly killed: boolean;
  /** Exit code of a victim that ended by itself. */
  readonly code: number | null;
  /** Bytes it had written by any system call, by the kernel's count; null when nobody could look. */
  readonly written: number | null;
  readonly stderr: string;
  /** For how long its journal was there, when somebody watched and nobody killed it; milliseconds. */
  readonly journal: number | null;
}

/** A moment for people and for replay. */
export function describeMoment(moment: Moment): string {
  if (moment.kind === 'call') return `at ${moment.call} number ${moment.when}`;
  const since = moment.kind === 'time' ? 'start' : 'its journal appeared';
  return `${moment.milliseconds.toFixed(1)} ms after ${since}`;
}

/** Runs `downfold ARGS`, which must succeed; resolves with the milliseconds it took. */
export async function runToEnd(args: readonly string[]): Promise<number> {
  const start = performance.now();
  const { code, stderr } = await downfold(args);
  if (code !== 0) throw new Error(`downfold ${args.join(' ')}: exit ${code}: ${stderr}`);
  return performance.now() - start;
}

/** Starts `downfold ARGS` and kills it, by SIGKILL, at `moment`. */
export async function startAndKill(args: readonly string[], moment: Moment): Promise<Victim> {
  const tracer = moment.kind === 'call' ? tracerOf(moment) : [];
  const [file = '', ...rest] = [...tracer, process.execPath, CLI, ...args];
  const env = { ...process.env, NODE_EXTRA_CA_CERTS: undefined };
  let written: number | null = null;
  let timer: NodeJS.Timeout | undefined;
  const killIn = (milliseconds: number): void => {
    timer = setTimeout(() => {
      written = stopAndCount(child);
    }, milliseconds);
  };
  using watched =
    moment.kind === 'journal'
      ? watchJournal(moment.journal, () => killIn(moment.milliseconds))
      : null;
  const child = spawn(file, rest, { env, stdio: ['ignore', 'ignore', 'pipe'] });
  let stderr = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
  });
  if (moment.kind === 'time') killIn(moment.milliseconds);
  const code = await new Promise<number | null>((resolve, reject) => {
    child.on('error', reject);
    child.on('close', resolve);
  });
  clearTimeout(timer);
  const killed = code !== 0 && code !== 1;
  return { killed, code, written, stderr, journal: killed ? null : lifeOf(watched) };
}

function lifeOf(
  watched: { readonly appeared: number | null; readonly gone: number | null } | null,
): number | null {
  const { appeared = null, gone = null } = watched ?? {};
  return appeared === null || gone === null ? null : gone - appeared;
}

function tracerOf({ call, when }: { readonly call: string; readonly when: number }): string[] {
  const inject = `inject=${call}:signal=SIGKILL:when=${when}`;
  return ['strace', '-f', '-qqq', '-o', '/dev/null', '-e', `trace=${call}`, '-e', inject];
}

/** Stops the process, so that its count no longer moves, reads the count, kills it. */
function stopAndCount(child: ChildProcess): number | null {
  if (child.pid === undefined || child.exitCode !== null) return null;
  child.kill('SIGSTOP');
  try {
    const text = readFileSync(`/proc/${child.pid}/io`, 'utf8');
    return Number(/^wchar: (\d+)$/m.exec(text)?.[1] ?? Number.NaN);
  } catch {
    return null; // it was gone already: then it was not killed, and nothing is claimed of it
  } finally {
    child.kill('SIGKILL');
  }
}
