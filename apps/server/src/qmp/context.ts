import type { Graph } from '../graph/graph.ts';
import type { BlockJobs } from '../jobs/block-jobs.ts';
import type { Journals } from '../jobs/journals.ts';
import type { Exports } from '../nbd/exports.ts';
import type { Objects } from '../options/objects.ts';

/** What commands work on. */
export interface ServerParts {
  readonly objects: Objects;
  readonly graph: Graph;
  readonly exports: Exports;
  readonly jobs: BlockJobs;
  readonly journals: Journals;
  /** Ends the server; returns at once. */
  quit(): void;
}
