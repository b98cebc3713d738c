import { randomUUID } from 'node:crypto';
import { readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { CLI } from '../tools/cli.ts';
import type { Draw } from '../tools/draw.ts';
import { must } from '../tools/process.ts';
import { watchJournal } from './journal-file.ts';
import { type Moment, runToEnd } from './victim.ts';

/** The life of a command that nobody kills. */
export interface Life {
  /** From start to end, in milliseconds. */
  readonly total: number;
  /** For how long its journal was there: from before the first write of an image to after the last. */
  readonly journal: number;
  /** System calls by which it changes files, and how often the busiest of its threads made each; empty when nobody traced it. */
  readonly calls: readonly (readonly [call: string, most: number])[];
}

/** System calls that change files or names, or make them durable. */
const CALLS = [
  'pwrite64',
  'fdatasync',
  'fsync',
  'ftruncate',
  'fallocate',
  'copy_file_range',
  'rename',
  'unlink',
];

/** Lets a command run to its end, and once more under strace when `traced`. `prepare` puts everything back before each. */
export async function lifeOf(
  args: readonly string[],
  journal: string,
  prepare: () => Promise<void>,
  traced = true,
): Promise<Life> {
  await prepare();
  using watched = watchJournal(journal);
  const total = await runToEnd(args);
  const { appeared, gone } = watched;
  if (appeared === null) throw new Error(`downfold ${args.join(' ')}: made no journal`);
  const life = { total, journal: (gone ?? performance.now()) - appeared };
  if (!traced) return { ...life, calls: [] };
  await prepare();
  return { ...life, calls: await callsOf(args) };
}

async function callsOf(args: readonly string[]): Promise<Life['calls']> {
  const output = join(tmpdir(), `downfold-calls-${randomUUID()}`);
  try {
    const trace = ['-f', '-qqq', '-s', '0', '-o', output, '-e', `trace=${CALLS.join(',')}`];
    await must('strace', [...trace, process.execPath, CLI, ...args], {
      env: { NODE_EXTRA_CA_CERTS: undefined },
    });
    const counts = new Map<string, Map<string, number>>(CALLS.map((call) => [call, new Map()]));
    for (const [, thread = '', call = ''] of (await readFile(output, 'utf8')).matchAll(
      /^(\d+) +(\w+)\(/gm,
    )) {
      const threads = counts.get(call);
      threads?.set(thread, (threads.get(thread) ?? 0) + 1);
    }
    return [...counts]
      .map(([call, threads]) => [call, Math.max(0, ...threads.values())] as const)
      .filter(([, most]) => most > 0);
  } finally {
    await rm(output, { force: true });
  }
}

/** The same life, when its journal was seen to be there for `journal` milliseconds: the shortest counts, so that moments hit. */
export function shortened(life: Life, journal: number | null): Life {
  return journal === null || journal >= life.journal ? life : { ...life, journal };
}

/** A random moment: mostly while the job has its journal, seldom before or after; by the clock or by system calls. */
export function anyMoment(from: Draw, life: Life, journal: string): Moment {
  const share = from.integer(10_000) / 10_000;
  if (from.chance(0.1)) return { kind: 'time', milliseconds: share * life.total * 1.05 };
  const [first, ...rest] = life.calls;
  if (first === undefined || from.chance(0.5))
    return { kind: 'journal', journal, milliseconds: share * life.journal };
  const [call, most] = from.pick([first, ...rest]);
  return { kind: 'call', call, when: from.between(1, most) };
}
