import type { Deleted } from './delete.ts';
import { type Journal, pivotIn } from './journal.ts';
import type { CommitResult, Job, Position } from './parts.ts';
import { pathOf } from './plan.ts';

/** What a run did, as it counted it. */
type Done = Pick<CommitResult, 'unmarked' | 'verified'> &
  Pick<Position, 'copied' | 'zeroed'> & { readonly kept?: number };

/** What a job came to. */
export function resultOf(
  { plan, parts }: Job,
  journal: Journal,
  done: Done,
  from: Position,
  { deleted, undeleted, started }: Deleted & { readonly started: number },
): CommitResult {
  const pivoted = pivotIn(journal);
  return {
    operation: plan.request.operation,
    strategy: plan.strategy.name,
    job: journal.intent.job,
    bytesCopied: done.copied - from.copied,
    bytesZeroed: done.zeroed - from.zeroed,
    bytesSkippedByResume: from.copied,
    cases: plan.cases,
    invalidated: plan.invalidates.map(({ node }) => pathOf(plan, node)),
    unmarked: done.unmarked,
    unreadable: plan.unreadable,
    relinked: plan.relinks.map(({ overlay, to }) => ({
      image: pathOf(plan, overlay),
      backing: to?.name ?? null,
    })),
    verified: done.verified,
    ...(done.kept === undefined || done.kept === 0 ? {} : { bytesKept: done.kept }),
    deleted,
    undeleted,
    ...(pivoted === null ? {} : { pivoted: pathOf(plan, pivoted.to) }),
    seconds: (parts.clock.now() - started) / 1000,
  };
}
