import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { performance } from 'node:perf_hooks';

/** One piece of work, timed. */
export interface Timing {
  /** Wall clock. */
  readonly milliseconds: number;
  /** User and system time of the processes that did the work. */
  readonly cpuMilliseconds: number;
  /** Largest resident set of one of them, bytes. */
  readonly peakBytes: number;
  /** Share of the machine's CPU time that others took meanwhile, 0 to 1. */
  readonly noise: number;
}

// `NODE_EXTRA_CA_CERTS` costs a start 55 ms on some versions of Node
export const environment: NodeJS.ProcessEnv = {
  ...process.env,
  NODE_EXTRA_CA_CERTS: undefined,
  LC_ALL: 'C',
};

/** What a program may print, bytes: `qemu-img map` of scattered clusters takes a hundred for each. */
const MOST_OUTPUT = 256 << 20;

/** Runs a program that must succeed. */
export function must(program: string, args: readonly string[], cwd?: string): string {
  const how = { cwd, env: environment, encoding: 'utf8', maxBuffer: MOST_OUTPUT } as const;
  const ended = spawnSync(program, args, how);
  if (ended.status === 0) return ended.stdout;
  const why = ended.error?.message ?? `${ended.stdout}${ended.stderr}`;
  throw new Error(`${program} ${args.join(' ')}: exit ${ended.status}: ${why}`);
}

/** Whether a program is there. */
export function have(program: string): boolean {
  const found = spawnSync('sh', ['-c', 'command -v "$0"', program], { stdio: 'ignore' });
  return found.status === 0;
}

/** What a running process has used since it started. */
interface Usage {
  readonly cpuMilliseconds: number;
  readonly peakBytes: number;
}

// the kernel counts CPU time in hundredths of a second
const TICK = 10;

function usageOf(pid: number): Usage {
  const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
  // behind the name, which may hold blanks and brackets: state is field 3, utime 14, stime 15
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  const peak = /^VmHWM:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'latin1'))?.[1];
  return {
    cpuMilliseconds: (Number(fields[11]) + Number(fields[12])) * TICK,
    peakBytes: Number(peak) * 1024,
  };
}

/** Milliseconds that all processors together have worked since the machine started. */
function machineBusy(): number {
  const [, user, nice, system, , , irq, softirq] =
    /^cpu +(\d+) (\d+) (\d+) (\d+) (\d+) (\d+) (\d+)/.exec(readFileSync('/proc/stat', 'latin1')) ??
    [];
  return [user, nice, system, irq, softirq].reduce((sum, ticks) => sum + Number(ticks) * TICK, 0);
}

const shareOf = (milliseconds: number, elapsed: number): number =>
  Math.max(0, milliseconds) / (elapsed * availableParallelism());

// GNU time: user, system, largest resident set in KiB; written behind whatever the program says on stderr
const FORMAT = 'timed %U %S %M';

/**
 * Runs a program that must succeed, start and exit included, and measures it.
 * @param server process that works for it, whose CPU time is counted too
 */
export function timed(program: string, args: readonly string[], server?: number): Timing {
  const serverBefore = server === undefined ? null : usageOf(server);
  const busyBefore = machineBusy();
  const start = performance.now();
  const ended = spawnSync('/usr/bin/time', ['-f', FORMAT, program, ...args], {
    env: environment,
    encoding: 'utf8',
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  const milliseconds = performance.now() - start;
  const busy = machineBusy() - busyBefore;
  const [, user, system, peak] = /^timed (\S+) (\S+) (\d+)$/m.exec(ended.stderr ?? '') ?? [];
  if (ended.status !== 0 || peak === undefined)
    throw new Error(`${program} ${args.join(' ')}: ${ended.error?.message ?? ended.stderr}`);
  const own = (Number(user) + Number(system)) * 1000;
  const serverAfter = server === undefined ? null : usageOf(server);
  const served = (serverAfter?.cpuMilliseconds ?? 0) - (serverBefore?.cpuMilliseconds ?? 0);
  return {
    milliseconds,
    cpuMilliseconds: own + served,
    peakBytes: Math.max(Number(peak) * 1024, serverAfter?.peakBytes ?? 0),
    noise: shareOf(busy - own - served, milliseconds),
  };
}

/** Measures what the process `pid` does while `work` waits for it. */
export async function timedIn(pid: number, work: () => Promise<void>): Promise<Timing> {
  const before = usageOf(pid);
  const busyBefore = machineBusy();
  const start = performance.now();
  await work();
  const milliseconds = performance.now() - start;
  const busy = machineBusy() - busyBefore;
  const { cpuMilliseconds, peakBytes } = usageOf(pid);
  const own = cpuMilliseconds - before.cpuMilliseconds;
  return {
    milliseconds,
    cpuMilliseconds: own,
    peakBytes,
    noise: shareOf(busy - own, milliseconds),
  };
}
