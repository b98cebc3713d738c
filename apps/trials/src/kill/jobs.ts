import { fileName, imageOf, type Pool } from './pool.ts';
import { DEEP, GROWING, PLAIN, type PoolSpec, SIBLINGS, SIZES } from './pools.ts';

/** A way to change a chain, as the command line is told. */
export interface KillJob {
  readonly name: string;
  readonly operation: 'commit' | 'stream' | 'rebase';
  readonly pools: readonly [PoolSpec, ...PoolSpec[]];
  /** Arguments of `downfold` that begin it. */
  begin(pool: Pool): readonly string[];
}

/** What must become of an image: reads as before for ever, as top at the end, or is marked at the end. */
export type Fate = 'kept' | 'base' | 'lost';

/** All ways to change a chain. Base, top and active are the images of those names. */
export const JOBS: readonly KillJob[] = [
  commit('copy-down', [PLAIN, SIBLINGS, SIZES, GROWING, DEEP]),
  commit('depth-first', [PLAIN, SIBLINGS, SIZES, GROWING, DEEP]),
  commit('preserve', [SIBLINGS, SIZES, GROWING, DEEP]),
  commit('staged', [PLAIN, SIBLINGS, SIZES, DEEP]),
  {
    name: 'stream',
    operation: 'stream',
    pools: [PLAIN, SIBLINGS, SIZES, GROWING, DEEP],
    begin: (pool) => ['stream', '-b', pool.path('base'), pool.path('active')],
  },
  {
    name: 'rebase',
    operation: 'rebase',
    pools: [PLAIN, SIBLINGS, SIZES, GROWING],
    begin: (pool) => {
      const base = imageOf(pool.spec, 'base');
      return ['rebase', '-b', fileName(base), '-F', base.format, pool.path('active')];
    },
  },
];

function commit(strategy: string, pools: KillJob['pools']): KillJob {
  const siblings = strategy === 'preserve' ? '--keep-siblings' : '--invalidate-siblings';
  return {
    name: strategy,
    operation: 'commit',
    pools,
    begin: (pool) => [
      ...['commit', '--strategy', strategy, siblings, '-b', pool.path('base')],
      ...['--top', pool.path('top'), pool.path('active')],
    ],
  };
}

/**
 * The promise for each image of a pool (facts on crash safety, 2.4): a commit of top into base takes the meaning of base, and, but
 * for `preserve`, of all that reads through base without reading through top. Pulling up takes nobody's.
 */
export function fateOf({ name: job, operation }: KillJob, spec: PoolSpec, name: string): Fate {
  if (operation !== 'commit') return 'kept';
  if (name === 'base') return 'base';
  if (job === 'preserve') return 'kept';
  const down: string[] = [];
  for (let at: string | null = name; at !== null; at = imageOf(spec, at).backing) down.push(at);
  return down.includes('top') ? 'kept' : 'lost';
}

/** Images whose backing file must be base when the job is over. */
export function linkedToBase({ operation }: KillJob, { images }: PoolSpec): readonly string[] {
  if (operation !== 'commit') return ['active'];
  return images
    .filter(({ name, backing }) => name === 'top' || backing === 'top')
    .map(({ name }) => name);
}
