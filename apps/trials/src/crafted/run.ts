import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { FROM_SOURCE } from '../tools/from-source.ts';
import { corpus } from './corpus.ts';
import { faultsOf, type Outcome, overBudget } from './outcome.ts';

/** An image on which nothing happens for so long hangs: ten times the budget, and a process start. */
const HANGS = 5000;
const PROBE = fileURLToPath(new URL('./probe.ts', import.meta.url));

/** What the corpus showed. */
export interface CorpusFigures {
  readonly outcomes: readonly Outcome[];
  /** One line each. */
  readonly faults: readonly string[];
}

/** Opens every image of the corpus in `directory`, in a child process; after a hang in a new one. */
export async function runCorpus(directory: string): Promise<CorpusFigures> {
  const outcomes = new Map<string, Outcome>();
  const faults: string[] = [];
  let names = corpus.map((item) => item.name);
  while (names.length > 0) {
    const { seen, stuck, stderr } = await probeAll(directory, names);
    for (const outcome of seen) outcomes.set(outcome.name, outcome);
    if (stuck === null && seen.length < names.length)
      throw new Error(`the probe died before its first image: ${stderr}`);
    if (stuck !== null) faults.push(`${stuck}: hangs or dies: ${stderr.trim()}`);
    const done = new Set([...seen.map((outcome) => outcome.name), stuck]);
    names = names.filter((name) => !done.has(name));
  }
  // a machine that was busy elsewhere is no fault of ours: what was only slow gets a second look
  const slow = [...outcomes.values()].filter((outcome) => overBudget(outcome).length > 0);
  for (const { name } of slow)
    for (const again of (await probeAll(directory, [name])).seen) outcomes.set(name, again);
  for (const item of corpus) {
    const outcome = outcomes.get(item.name);
    if (outcome !== undefined) faults.push(...faultsOf(item, outcome, join(directory, item.name)));
  }
  return { outcomes: [...outcomes.values()], faults };
}

/** The command that probes, for tracers to be put before it. */
export function probeCommand(directory: string, names: readonly string[]): readonly string[] {
  return [process.execPath, '--expose-gc', ...FROM_SOURCE, PROBE, directory, ...names];
}

interface Probed {
  readonly seen: readonly Outcome[];
  /** The image it was busy with when it ended or had to be killed. */
  readonly stuck: string | null;
  readonly stderr: string;
}

function probeAll(directory: string, names: readonly string[]): Promise<Probed> {
  const [program = '', ...args] = probeCommand(directory, names);
  const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  const seen: Outcome[] = [];
  let [stuck, stderr]: [string | null, string] = [null, ''];
  let watchdog = setTimeout(() => child.kill('SIGKILL'), 2 * HANGS);
  createInterface({ input: child.stdout }).on('line', (line) => {
    clearTimeout(watchdog);
    watchdog = setTimeout(() => child.kill('SIGKILL'), HANGS);
    const report = JSON.parse(line) as { readonly begin: string } | Outcome;
    if ('begin' in report) stuck = report.begin;
    else {
      seen.push(report);
      stuck = null;
    }
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
  });
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', () => {
      clearTimeout(watchdog);
      resolve({ seen, stuck, stderr });
    });
  });
}
