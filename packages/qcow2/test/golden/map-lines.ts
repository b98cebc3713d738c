/** A run of one status; `host` counts for data only. */
export interface MapRun {
  readonly offset: number;
  readonly length: number;
  readonly status: 'data' | 'compressed' | 'zero' | 'zero preallocated' | 'unallocated';
  readonly host: number | null;
}

/** Runs as lines of the manifest, neighbours joined. */
export function mapLines(runs: readonly MapRun[]): readonly string[] {
  const joined: MapRun[] = [];
  for (const run of runs) {
    const last = joined.at(-1);
    if (last !== undefined && last.status === run.status && follows(last, run))
      joined[joined.length - 1] = { ...last, length: last.length + run.length };
    else joined.push(run);
  }
  return joined.map(
    ({ offset, length, status, host }) =>
      `${offset}+${length} ${status}${status === 'data' ? ` @${host}` : ''}`,
  );
}

function follows(last: MapRun, run: MapRun): boolean {
  return run.status !== 'data' || run.host === (last.host ?? 0) + last.length;
}
