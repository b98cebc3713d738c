import type { CommitStrategy } from '../strategy.ts';
import { inUse } from './client-settings.ts';
import { commitSettings } from './commit-settings.ts';
import type { Depth } from './explore.ts';
import { randomSettings } from './random-settings.ts';
import { rebaseSettings } from './rebase-settings.ts';
import type { Setting } from './setting.ts';
import { streamSettings } from './stream-settings.ts';

/** How much is tried: seconds, a minute, or everything. */
export type Scope = 'quick' | 'ci' | 'long';

interface Counts {
  /** Commits of 1, 2, 3 and 4 layers, of all that there are. */
  readonly commit: readonly number[];
  /** Streams over 1, 2 and 3 layers. */
  readonly stream: readonly number[];
  readonly rebase: number;
  /** Pools of any shape. */
  readonly random: number;
  readonly depth: Depth;
}

const ALL = Number.MAX_SAFE_INTEGER;

const scopes: Readonly<Record<Scope, Counts>> = {
  quick: {
    commit: [64, 128, 96, 64],
    stream: [60, 100, 100],
    rebase: 250,
    random: 300,
    depth: { losses: 6, resumes: 2, runs: 24 },
  },
  ci: {
    commit: [ALL, 1500, 1000, 750],
    stream: [ALL, 1000, 1000],
    rebase: 3000,
    random: 4000,
    depth: { losses: 8, resumes: 3, runs: 64 },
  },
  long: {
    commit: [ALL, ALL, ALL, ALL],
    stream: [ALL, ALL, ALL],
    rebase: ALL,
    random: 100_000,
    depth: { losses: 10, resumes: 5, runs: 1000 },
  },
};

/** How thoroughly each setting of a scope is explored. */
export function depthOf(scope: Scope): Depth {
  return scopes[scope].depth;
}

/** The settings that a strategy is run on, the simplest ones first. */
export function* settingsOf(
  strategy: Pick<CommitStrategy, 'operation' | 'keepsSiblings' | 'pivots'>,
  scope: Scope,
): Generator<Setting, void, undefined> {
  const settings = allSettings(strategy, scope);
  yield* strategy.pivots === true ? inUse(settings) : settings;
}

function* allSettings(
  { operation, keepsSiblings }: Pick<CommitStrategy, 'operation' | 'keepsSiblings'>,
  scope: Scope,
): Generator<Setting, void, undefined> {
  const { commit, stream, rebase, random } = scopes[scope];
  if (operation === 'commit')
    for (const [index, count] of commit.entries())
      yield* commitSettings(index + 1, count, keepsSiblings);
  if (operation === 'stream')
    for (const [index, count] of stream.entries()) yield* streamSettings(index + 1, count);
  if (operation === 'rebase') yield* rebaseSettings(rebase);
  yield* randomSettings(operation, random, keepsSiblings);
}
