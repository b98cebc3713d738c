import type { LayerFacts, NodeId } from './layer.ts';

/** One image found in a pool. */
export interface PoolImage extends LayerFacts {
  /** Node of its backing file, when that file is in the pool or was reached from it, if only by its identity; null: none, or see `problem`. */
  readonly backingNode: NodeId | null;
  /** Why its backing file could not be resolved; null: no problem. Code and message of the error. */
  readonly problem: { readonly code: string; readonly message: string } | null;
}

/** A file or directory of the pool that could not be looked at, or looked like an image and could not be read as one. */
export interface PoolProblem {
  readonly path: string;
  readonly code: string;
  readonly message: string;
}

/** Every image under some directories, and who depends on whom. Plain JSON; a snapshot of one moment. */
export interface PoolGraph {
  readonly directories: readonly string[];
  /** In order of path. */
  readonly images: readonly PoolImage[];
  readonly problems: readonly PoolProblem[];
}
