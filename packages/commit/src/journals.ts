import { type ChainLayer, identityOf } from '@downfold/chain';
import type { StorageBackend } from '@downfold/storage';
import { claimOf, conflictBetween } from './claim.ts';
import { CommitError } from './errors.ts';
import { type Journal, journalPath, openJournal, readJournal } from './journal.ts';
import { inPlace } from './journal-plan.ts';
import type { CommitPlan } from './plan.ts';

/** Opens the journal beside an image. @throws CommitError `COMMIT_NO_JOURNAL` */
export async function journalBeside(backend: StorageBackend, path: string): Promise<Journal> {
  const journal = await openJournal(backend, journalPath(path));
  if (journal !== null) return journal;
  // a crash that leaves this came before the first change; a disk that lost what was on it may have come later
  const unwritten =
    (await identityOf(journalPath(path), backend)) === null
      ? ''
      : `; its journal '${journalPath(path)}' was never written, and the next job replaces it; 'downfold check' of the images shows whether one left anything`;
  throw new CommitError(
    'COMMIT_NO_JOURNAL',
    `${path}: there is no interrupted job of it${unwritten}`,
    { image: path },
  );
}

/** @throws CommitError `COMMIT_INTERRUPTED_BEFORE` */
export async function assertNoJournal(backend: StorageBackend, leaf: string): Promise<void> {
  const found = await readJournal(backend, journalPath(leaf));
  if (found !== null) throw interrupted(leaf, found.intent.job);
}

/**
 * A journal lies beside the leaf of its job, which may be any layer: none of another job may be about what a plan touches. One that is not runs, or
 * can be gone on with, beside it. @throws CommitError `COMMIT_INTERRUPTED_BEFORE`
 */
export async function assertNoJournalOf(
  plan: CommitPlan,
  layers: readonly ChainLayer[],
  backend: StorageBackend,
): Promise<void> {
  for (const { facts } of layers) {
    const path = journalPath(facts.path);
    const found = await readJournal(backend, path);
    if (found === null) continue;
    const theirs = inPlace({ path, intent: found.intent });
    if (conflictBetween(claimOf(plan), claimOf(theirs)) !== null)
      throw interrupted(facts.path, found.intent.job);
  }
}

function interrupted(leaf: string, job: string): CommitError {
  return new CommitError(
    'COMMIT_INTERRUPTED_BEFORE',
    `${leaf}: an earlier job was interrupted; go on with it: downfold resume '${leaf}', or give it up: downfold abort '${leaf}'`,
    { image: leaf, job },
  );
}
