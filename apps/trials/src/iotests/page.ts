import { markdownTable } from '../tools/docs.ts';
import type { Verdict } from './judge.ts';
import { FORMATS } from './run.ts';

/** The figures, and what failed and does not apply, with the tests of each reason in one row. */
export function pageOf(verdicts: readonly Verdict[]): string {
  const count = (format: string, verdict: Verdict['verdict']): string =>
    String(verdicts.filter((one) => one.format === format && one.verdict === verdict).length);
  const figures = markdownTable(
    ['format', 'passed', 'failed', 'not applicable'],
    FORMATS.map((format) => [
      format,
      count(format, 'passed'),
      count(format, 'failed'),
      count(format, 'not applicable'),
    ]),
  );
  return [
    figures,
    '',
    '### Failed',
    '',
    byReason(verdicts, 'failed'),
    '',
    '### Not applicable',
    '',
    byReason(verdicts, 'not applicable'),
    '',
    '### Passed',
    '',
    ...FORMATS.flatMap((format) => [`${format}: ${namesOf(verdicts, format, 'passed')}.`, '']),
  ]
    .join('\n')
    .trimEnd();
}

function byReason(verdicts: readonly Verdict[], verdict: Verdict['verdict']): string {
  const rows = new Map<string, string[]>();
  for (const one of verdicts) {
    if (one.verdict !== verdict) continue;
    const reason = one.reason ?? '**nobody has said why**';
    const key = `${one.format}\n${reason}`;
    rows.set(key, [...(rows.get(key) ?? []), one.test]);
  }
  return markdownTable(
    ['format', 'why', 'tests'],
    [...rows].map(([key, tests]) => [...key.split('\n'), tests.join(' ')]),
  );
}

function namesOf(
  verdicts: readonly Verdict[],
  format: string,
  verdict: Verdict['verdict'],
): string {
  return verdicts
    .filter((one) => one.format === format && one.verdict === verdict)
    .map(({ test }) => test)
    .join(' ');
}
