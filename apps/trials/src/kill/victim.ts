import { type ChildProcess, spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { CLI } from '../tools/cli.ts';

/** When a process is killed: some time after its start, or as it is about to return from its n-th such system call. */
export type Moment =
  | { readonly kind: 'time'; readonly milliseconds: number }
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
}

/** A moment for people and for replay. */
export function describeMoment(moment: Moment): string {
  return moment.kind === 'time'
    ? `after ${moment.milliseconds.toFixed(1)} ms`
    : `at ${moment.call} number ${moment.when}`;
}

/** Starts `downfold ARGS` and kills it, by SIGKILL, at `moment`. */
export async function startAndKill(args: readonly string[], moment: Moment): Promise<Victim> {
  const program = [process.execPath, CLI, ...args];
  const tracer =
    moment.kind === 'time'
      ? []
      : [
          'strace',
          '-f',
          '-qqq',
          '-o',
          '/dev/null',
          '-e',
          `trace=${moment.call}`,
          '-e',
          inject(moment),
        ];
  const [file = '', ...rest] = [...tracer, ...program];
  const env = { ...process.env, NODE_EXTRA_CA_CERTS: undefined };
  const child = spawn(file, rest, { env, stdio: ['ignore', 'ignore', 'pipe'] });
  let stderr = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
  });
  const ended = new Promise<number | null>((resolve, reject) => {
    child.on('error', reject);
    child.on('close', resolve);
  });
  let written: number | null = null;
  if (moment.kind === 'time') {
    const stop = new AbortController();
    const timer = sleep(moment.milliseconds, undefined, { signal: stop.signal }).then(
      () => {
        written = stopAndCount(child);
      },
      () => undefined,
    );
    await ended;
    stop.abort();
    await timer;
  }
  const code = await ended;
  return { killed: code !== 0 && code !== 1, code, written, stderr };
}

function inject({ call, when }: { readonly call: string; readonly when: number }): string {
  return `inject=${call}:signal=SIGKILL:when=${when}`;
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
