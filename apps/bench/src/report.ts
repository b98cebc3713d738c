import { readFileSync, writeFileSync } from 'node:fs';
import { cpus, release, totalmem } from 'node:os';
import { median, type Scenario } from './measure.ts';
import { must, type Timing } from './process.ts';

/** Figures and where they come from; plain JSON. */
export interface Report {
  readonly date: string;
  readonly machine: string;
  readonly versions: Readonly<Record<'node' | 'qemu', string>>;
  readonly command: string;
  readonly pairs: number;
  readonly scenarios: readonly Scenario[];
}

/** Says where the figures come from. */
export function reportOf(scenarios: readonly Scenario[], args: readonly string[]): Report {
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
    pairs: scenarios[0]?.qemu.length ?? 0,
    scenarios,
  };
}

const HEAD: readonly string[] = [
  'scenario',
  'Downfold',
  '`qemu-img commit`',
  'ratio',
  'CPU ratio',
  'peak memory, Downfold',
  'QEMU',
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
  const rows = report.scenarios.map((scenario) => {
    const { downfold, qemu } = scenario;
    return [
      `${scenario.mebibytes} MiB ${scenario.shape}`,
      seconds(middle(downfold, 'milliseconds')),
      seconds(middle(qemu, 'milliseconds')),
      `**${scenario.ratio.toFixed(2)}**`,
      (middle(downfold, 'cpuMilliseconds') / middle(qemu, 'cpuMilliseconds')).toFixed(2),
      mebibytes(peak(downfold)),
      mebibytes(peak(qemu)),
    ];
  });
  const { date, machine, versions, command, pairs } = report;
  const origin = `${date}; ${machine}; Node ${versions.node}, QEMU ${versions.qemu}; \`${command}\`.`;
  const noise = Math.max(
    ...report.scenarios.flatMap(({ downfold, qemu }) =>
      [...downfold, ...qemu].map((one) => one.noise),
    ),
  );
  const method =
    `Medians of ${pairs} pairs run in turn; ratio: median of the pairs' ratios, below 1 Downfold is faster. ` +
    `Other processes took at most ${Math.round(noise * 100)} % of the machine meanwhile.`;
  return [...table([HEAD, ...rows]), '', origin, method].join('\n');
}

const middle = (timings: readonly Timing[], field: keyof Timing): number =>
  median(timings.map((timing) => timing[field]));
const peak = (timings: readonly Timing[]): number =>
  Math.max(...timings.map((timing) => timing.peakBytes));
const seconds = (milliseconds: number): string => `${(milliseconds / 1000).toFixed(2)} s`;
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
