import { posix } from 'node:path';
import { isUrl } from '@downfold/storage';
import { JOURNAL_SUFFIX, type Journal, journalPath, leafOf } from './journal.ts';
import type { CommitPlan } from './plan.ts';

/** The plan of a journal with absolute paths: the images lie where they lay, seen from the journal. */
export function inPlace(journal: Pick<Journal, 'path' | 'intent'>): CommitPlan {
  const directory = posix.dirname(journal.path);
  return withPaths(journal.intent.plan, (path) => posix.resolve(directory, path));
}

/** The image that a journal lies beside, by its name; where a name was cut, by what the journal tells. */
export function leafBeside(journal: Pick<Journal, 'path' | 'intent'>): string {
  const told = leafOf(inPlace(journal));
  return journalPath(told) === journal.path ? told : journal.path.slice(0, -JOURNAL_SUFFIX.length);
}

/** A plan whose paths are relative to a directory, so that its journal works wherever the files are mounted. */
export function relativeTo(plan: CommitPlan, directory: string): CommitPlan {
  return withPaths(plan, (path) => posix.relative(directory, path));
}

function withPaths(plan: CommitPlan, path: (before: string) => string): CommitPlan {
  const images = plan.images.map((facts) =>
    isUrl(facts.path) ? facts : { ...facts, path: path(facts.path) },
  );
  return { ...plan, images };
}
