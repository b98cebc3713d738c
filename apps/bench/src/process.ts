import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { performance } from 'node:perf_hooks';

/** One timed process, start and exit included. */
export interface Timing {
  /** Wall clock. */
  readonly milliseconds: number;
  /** User and system time of the process and its children. */
  readonly cpuMilliseconds: number;
  /** Largest resident set, bytes. */
  readonly peakBytes: number;
  /** Share of the machine's CPU time that others took meanwhile, 0 to 1. */
  readonly noise: number;
}

// `NODE_EXTRA_CA_CERTS` costs a start 55 ms on some versions of Node
const environment = { ...process.env, NODE_EXTRA_CA_CERTS: undefined, LC_ALL: 'C' };

/** Runs a program that must succeed. */
export function must(program: string, args: readonly string[], cwd?: string): string {
  const ended = spawnSync(program, args, { cwd, env: environment, encoding: 'utf8' });
  if (ended.status === 0) return ended.stdout;
  const why = ended.error?.message ?? `${ended.stdout}${ended.stderr}`;
  throw new Error(`${program} ${args.join(' ')}: exit ${ended.status}: ${why}`);
}

// GNU time: user, system, largest resident set in KiB; written behind whatever the program says on stderr
const FORMAT = 'timed %U %S %M';

/** Milliseconds that all processors together have worked since the machine started; the kernel counts in hundredths of a second. */
function machineBusy(): number {
  const [, user, nice, system, , , irq, softirq] =
    /^cpu +(\d+) (\d+) (\d+) (\d+) (\d+) (\d+) (\d+)/.exec(readFileSync('/proc/stat', 'latin1')) ??
    [];
  return [user, nice, system, irq, softirq].reduce((sum, ticks) => sum + Number(ticks) * 10, 0);
}

/** Runs a program that must succeed, and measures it. */
export function timed(program: string, args: readonly string[]): Timing {
  const busyBefore = machineBusy();
  const start = performance.now();
  const ended = spawnSync('/usr/bin/time', ['-f', FORMAT, program, ...args], {
    env: environment,
    encoding: 'utf8',
  });
  const milliseconds = performance.now() - start;
  const busy = machineBusy() - busyBefore;
  const [, user, system, peak] = /^timed (\S+) (\S+) (\d+)$/m.exec(ended.stderr ?? '') ?? [];
  if (ended.status !== 0 || peak === undefined)
    throw new Error(`${program} ${args.join(' ')}: ${ended.error?.message ?? ended.stderr}`);
  const cpuMilliseconds = (Number(user) + Number(system)) * 1000;
  return {
    milliseconds,
    cpuMilliseconds,
    peakBytes: Number(peak) * 1024,
    noise: Math.max(0, busy - cpuMilliseconds) / (milliseconds * availableParallelism()),
  };
}
