import { type Failing, REASONS } from './reasons.ts';
import type { Ended, Format } from './run.ts';

/** What became of one test on one format. */
export interface Verdict {
  readonly test: string;
  readonly format: Format;
  readonly verdict: 'passed' | 'failed' | 'not applicable';
  /** Why it failed or does not apply; null: it failed, and nobody has said why. */
  readonly reason: string | null;
}

/**
 * Judges a test by how it ended with Downfold in the place of qemu-img, and, if it failed, with qemu-img itself (null: it was not run).
 * What QEMU fails as well, on this machine, says nothing about Downfold; nor does a test in which nothing was asked of it.
 */
export function judge(format: Format, ours: Ended, theirs: Ended | null): Verdict {
  const { test } = ours;
  const verdict = (how: Verdict['verdict'], reason: string | null): Verdict => ({
    test,
    format,
    verdict: how,
    reason,
  });
  if (ours.how === 'skipped') return verdict('not applicable', skipReason(ours.why, format));
  if (ours.calls === 0)
    return verdict('not applicable', 'asks qemu-img for nothing that Downfold does');
  if (ours.how === 'passed') return verdict('passed', '');
  if (theirs?.how === 'failed')
    return verdict('not applicable', 'fails with qemu-img as well, on this machine');
  return verdict('failed', reasonOf(test, format));
}

/** What is known to fail, and passed: the reason in the table is stale. What does not apply may do so elsewhere. */
export function stale(verdicts: readonly Verdict[]): readonly string[] {
  return verdicts
    .filter(({ test, format, verdict }) => verdict === 'passed' && reasonOf(test, format) !== null)
    .map(({ test, format }) => `${format} ${test}`);
}

function reasonOf(test: string, format: Format): string | null {
  const of = (one: Failing): boolean => one.format === format && one.tests.includes(test);
  return REASONS.find(of)?.reason ?? null;
}

/** Skips for the same cause say the same. */
function skipReason(why: string, format: Format): string {
  if (/not suitable for this (image format|image protocol)/.test(why))
    return `not for ${format} files`;
  return `skips itself: ${why.replace(/ on \/\S+/, '')}`;
}
