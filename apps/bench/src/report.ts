import { readFileSync, writeFileSync } from 'node:fs';
import { cpus, release, totalmem } from 'node:os';
import { median, type Result } from './measure.ts';
import { must, type Timing } from './process.ts';

/** A row that was not measured. */
export interface Skipped {
  readonly work: string;
  readonly why: string;
}

/** Figures and where they come from; plain JSON. */
export interface Report {
  readonly date: string;
  readonly machine: string;
  readonly versions: Readonly<Record<'node' | 'qemu', string>>;
  readonly command: string;
  readonly pairs: number;
  readonly results: readonly Result[];
  readonly skipped: readonly Skipped[];
}

/** Says where the figures come from. */
export function reportOf(
  results: readonly Result[],
  skipped: readonly Skipped[],
  pairs: number,
  args: readonly string[],
): Report {
  const processor = cpus()[0]?.model ?? 'unknown processor';
  const memory = Math.round(totalmem() / 2 ** 30);
  return {
    date: new Date().toISOString().slice(0, 10),
    machine: `${cpus().length} x ${processor}, ${memory} GiB, Linux ${release()}`,
    versions: {
      node: process.version,
      qemu: /version (\S+)/.exec(must('qemu-img', ['--version']))?.[1] ?? 'unknown',
    },
    command: ['pnpm bench', ...args].join(' '),
    pairs,
    results,
    skipped,
  };
}

const HEAD: readonly string[] = [
  'work',
  'against',
  'Downfold',
  'theirs',
  'ratio',
  'wanted',
  'CPU ratio',
  'peak memory',
  'theirs',
];

/** A Markdown table whose columns are in line, as the formatter wants it. */
function table(rows: readonly (readonly string[])[]): readonly string[] {
  const widths = HEAD.map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)));
  const line = (cells: readonly string[], fill: string): string =>
    `| ${widths.map((width, column) => (cells[column] ?? '').padEnd(width, fill)).join(' | ')} |`;
  return [
    ...rows.slice(0, 1).map((row) => line(row, ' ')),
    line([], '-'),
    ...rows.slice(1).map((row) => line(row, ' ')),
  ];
}

/** The report as a Markdown table with its origin. */
export function markdown(report: Report): string {
  const rows = report.results.map(({ work, against, goal, ours, theirs, ratio }) => [
    work,
    against,
    time(middle(ours, 'milliseconds')),
    time(middle(theirs, 'milliseconds')),
    `**${ratio.toFixed(2)}**`,
    goal === null ? '' : `${goal.toFixed(2)}${ratio <= goal ? '' : ' (missed)'}`,
    (middle(ours, 'cpuMilliseconds') / middle(theirs, 'cpuMilliseconds')).toFixed(2),
    mebibytes(peak(ours)),
    mebibytes(peak(theirs)),
  ]);
  const { date, machine, versions, command, pairs, skipped } = report;
  const origin = `${date}; ${machine}; Node ${versions.node}, QEMU ${versions.qemu}; \`${command}\`.`;
  const noise = Math.max(
    0,
    ...report.results.flatMap(({ ours, theirs }) => [...ours, ...theirs].map((one) => one.noise)),
  );
  const method =
    `Medians of ${pairs} pairs run in turn; ratio: median of the pairs' ratios, below 1 Downfold is faster. ` +
    `Other processes took at most ${Math.round(noise * 100)} % of the machine meanwhile.`;
  const absent = skipped.map(({ work, why }) => `Not measured: ${work}: ${why}.`);
  return [...table([HEAD, ...rows]), '', origin, method, ...absent].join('\n');
}

const middle = (timings: readonly Timing[], field: keyof Timing): number =>
  median(timings.map((timing) => timing[field]));
const peak = (timings: readonly Timing[]): number =>
  Math.max(...timings.map((timing) => timing.peakBytes));
const time = (milliseconds: number): string =>
  milliseconds < 100 ? `${milliseconds.toFixed(2)} ms` : `${(milliseconds / 1000).toFixed(2)} s`;
const mebibytes = (bytes: number): string => `${Math.round(bytes / 2 ** 20)} MiB`;

const START = '<!-- bench:start -->';
const END = '<!-- bench:end -->';

/** Replaces what stands between the markers. @throws Error when the page has no markers. */
export function updateDocs(page: string, report: Report): void {
  const text = readFileSync(page, 'utf8');
  const [start, end] = [text.indexOf(START), text.indexOf(END)];
  if (start < 0 || end < start) throw new Error(`${page} lacks '${START}' and '${END}'`);
  const before = text.slice(0, start + START.length);
  writeFileSync(page, `${before}\n\n${markdown(report)}\n\n${text.slice(end)}`);
}
