import type { Graph } from '../graph/graph.ts';
import type { BlockJobs } from '../jobs/block-jobs.ts';
import type { Exports } from '../nbd/exports.ts';

/** What the server is about. */
export interface Status {
  phase: 'starting' | 'serving' | 'shutting down';
  /** Journals of interrupted jobs that were found at the start. */
  journals: number;
}

/** What is measured. */
export interface Observed {
  readonly graph: Graph;
  readonly exports: Exports;
  readonly jobs: BlockJobs;
  readonly status: Status;
}
