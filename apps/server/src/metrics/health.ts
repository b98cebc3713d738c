import type { Observed } from './observed.ts';

/** Why the server should be looked at, a line each; none: it does what it is for. */
export function problemsOf({ graph, jobs, status }: Observed): readonly string[] {
  const problems: string[] = [];
  if (status.phase !== 'serving') problems.push(status.phase);
  for (const disk of graph.disks)
    if (!disk.isSound)
      problems.push(`${disk.active.facts.path}: a flush failed: it takes no more changes`);
  for (const [id, error] of jobs.counters.failed) problems.push(`job '${id}' failed: ${error}`);
  for (const job of jobs.jobs) {
    const { 'io-status': ioStatus } = job.blockInfo();
    if (ioStatus !== 'ok') problems.push(`job '${job.id}' stopped on an error: ${ioStatus}`);
  }
  return problems;
}
