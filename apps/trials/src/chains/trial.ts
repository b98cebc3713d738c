import { scratch } from '../tools/scratch.ts';
import { snapshotsAway } from '../tools/snapshots-away.ts';
import { type BuiltChain, buildChain } from './build.ts';
import { judge } from './judge.ts';
import { chainSpec } from './spec.ts';
import { type Views, viewsBefore } from './views.ts';

/** Commits a chain, as its spec says; `views` are what QEMU read before, for a look at our own reading. */
export type Committer = (chain: BuiltChain, views: Views, strategy: string) => Promise<void>;

/** Builds the chain of a seed, commits it, and judges it. Rejects with every problem and the line that replays it. */
export async function tryChain(seed: number, commit: Committer, strategy: string): Promise<void> {
  await using directory = await scratch(`chain-${seed}`);
  const fail = (problem: string, cause?: unknown): never => {
    throw new Error(`seed ${seed}: ${problem}\n  replay: ${replayLine(seed, strategy)}`, { cause });
  };
  const spec = chainSpec(seed);
  const chain = await buildChain(spec, directory.path);
  const views = await viewsBefore(chain);
  // a raw base has no second mapping: staged must refuse it, and another strategy stands in
  const refused = strategy === 'staged' && spec.layers[spec.base]?.format === 'raw';
  const taken = refused ? 'copy-down' : strategy;
  try {
    if (refused) await snapshotsAway(() => mustRefuse(() => commit(chain, views, strategy)));
    await snapshotsAway(() => commit(chain, views, taken));
  } catch (cause) {
    fail(`the commit failed: ${(cause as Error).message}`, cause);
  }
  const problems = await judge(chain, views, taken);
  if (problems.length > 0) fail(problems.join('\n  '));
}

async function mustRefuse(work: () => Promise<void>): Promise<void> {
  const done = await work().then(
    () => true,
    (cause: Error) => {
      if (!cause.message.includes('has no second mapping')) throw cause;
      return false;
    },
  );
  if (done) throw new Error('a raw base was staged on');
}

/** The one line that runs a seed again. */
export function replayLine(seed: number, strategy: string): string {
  return `DOWNFOLD_STRATEGY=${strategy} DOWNFOLD_SEED=${seed} pnpm --filter @downfold/trials chain`;
}
