import { mkdir, mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { posix } from 'node:path';
import { type ChainEnvironment, renderTree, scanPool } from '@downfold/chain';
import { hashView } from '../demo/hash-view.ts';
import { DEMO_IMAGES, makeChain } from '../demo/make-chain.ts';
import { engineFor } from '../engine.ts';
import { environmentFor } from '../environment.ts';
import { UsageError } from '../failure.ts';
import { runOptions } from '../job.ts';
import { humanPlan } from '../output/plan.ts';
import { print, styled } from '../output/print.ts';
import { humanResult } from '../output/result.ts';
import { table } from '../output/table.ts';
import { absolute } from '../paths.ts';
import { interruption, stoppedBy } from '../signals.ts';

/** Options of `demo`. */
export interface DemoOptions {
  readonly dir?: string;
}

/** `downfold demo`: a chain of four by Downfold itself, its middle committed, every disk compared before and after. */
export async function demo({ dir }: DemoOptions): Promise<number> {
  const directory = await workIn(dir);
  using stop = interruption('stopping the demo');
  try {
    return await show(directory, stop.signal, dir !== undefined);
  } catch (cause) {
    throw stoppedBy(stop, cause, 'stopped');
  } finally {
    if (dir === undefined) await rm(directory, { recursive: true });
  }
}

async function workIn(dir: string | undefined): Promise<string> {
  if (dir === undefined) return mkdtemp(posix.join(tmpdir(), 'downfold-demo-'));
  await mkdir(dir, { recursive: true });
  if ((await readdir(dir)).length > 0) throw new UsageError(`'${dir}' is not empty`);
  return absolute(dir);
}

async function show(directory: string, signal: AbortSignal, keep: boolean): Promise<number> {
  const [base, , top, active] = DEMO_IMAGES.map((name) => posix.join(directory, name)) as [
    string,
    string,
    string,
    string,
  ];
  const environment = environmentFor(active, { signal });
  heading('1', 'A chain of four images, made by Downfold');
  await makeChain(directory, environment);
  await showPool(directory, environment);
  const before = await hashesOf([top, active], environment);

  heading('2', 'What committing the middle of it would do: downfold commit --dry-run');
  const engine = engineFor(active, {});
  const request = { file: active, format: 'qcow2', base, top, strategy: 'copy-down' };
  const plan = await engine.plan({ ...request, emptyTop: false }, { signal });
  print(humanPlan(plan));

  heading('3', 'Doing it: downfold commit --verify -b base.qcow2 --top top.qcow2 active.qcow2');
  const { run, display } = runOptions({ output: 'human', verify: true }, signal);
  const result = await engine.run(plan, run).finally(() => display.end(false));
  print(humanResult(result, active));

  heading('4', 'What changed');
  await showPool(directory, environment);
  const after = await hashesOf([base, top, active], environment);
  const rows = [
    ['active reads', before[active], after[active]],
    ['top reads', before[top], after[top]],
    ['base reads as top did', before[top], after[base]],
  ] as const;
  print('');
  print(table([['', 'BEFORE', 'AFTER', ''], ...rows.map(comparison)]));
  const right = rows.every(([, then, now]) => then === now);
  print('');
  print(
    right ? styled('green', 'Every disk reads as it must.') : 'A disk does not read as before.',
  );
  if (keep) print(`The images are in ${directory}.`);
  return right ? 0 : 1;
}

function comparison([what, then = '', now = '']: readonly [
  string,
  string | undefined,
  string | undefined,
]): readonly string[] {
  return [what, then.slice(0, 16), now.slice(0, 16), then === now ? 'same' : 'DIFFERENT'];
}

function heading(number: string, text: string): void {
  print('');
  print(styled('bold', `${number}. ${text}`));
  print('');
}

async function showPool(directory: string, environment: ChainEnvironment): Promise<void> {
  print(renderTree(await scanPool([directory], environment)).trimEnd());
}

/** SHA-256 of what each disk shows, by path. */
async function hashesOf(
  paths: readonly string[],
  environment: ChainEnvironment,
): Promise<Readonly<Record<string, string>>> {
  const hashes: Record<string, string> = {};
  for (const path of paths) hashes[path] = await hashView(path, environment);
  return hashes;
}
