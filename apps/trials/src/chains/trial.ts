import { scratch } from '../tools/scratch.ts';
import { type BuiltChain, buildChain } from './build.ts';
import { judge } from './judge.ts';
import { chainSpec } from './spec.ts';
import { type Views, viewsBefore } from './views.ts';

/** Commits a chain, as its spec says; `views` are what QEMU read before, for a look at our own reading. */
export type Committer = (chain: BuiltChain, views: Views) => Promise<void>;

/** Builds the chain of a seed, commits it, and judges it. Rejects with every problem and the line that replays it. */
export async function tryChain(seed: number, commit: Committer): Promise<void> {
  await using directory = await scratch(`chain-${seed}`);
  const fail = (problem: string, cause?: unknown): never => {
    throw new Error(`seed ${seed}: ${problem}\n  replay: ${replayLine(seed)}`, { cause });
  };
  const spec = chainSpec(seed);
  const chain = await buildChain(spec, directory.path);
  const views = await viewsBefore(chain);
  try {
    await commit(chain, views);
  } catch (cause) {
    fail(`the commit failed: ${(cause as Error).message}`, cause);
  }
  const problems = await judge(chain, views);
  if (problems.length > 0) fail(problems.join('\n  '));
}

/** The one line that runs a seed again. */
export function replayLine(seed: number): string {
  return `DOWNFOLD_SEED=${seed} pnpm --filter @downfold/trials chain`;
}
