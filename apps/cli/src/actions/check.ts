import { printable } from '@downfold/chain';
import type { CheckFinding, CheckReport } from '@downfold/image';
import { type Access, formatOf, openAlone } from '../environment.ts';
import { notThereYet } from '../later.ts';
import { printError, printResult } from '../output/print.ts';

/** Options of `check`. */
export interface CheckCommandOptions extends Access {
  readonly format: string;
  readonly output: string;
  readonly repair?: string;
  readonly quiet?: boolean;
}

/** qemu-img's: 0 clean, 2 corruption, 3 only leaks, 63 the format has nothing to check (1: could not check). */
const EXIT = { clean: 0, corrupt: 2, leaks: 3, unsupported: 63 } as const;

/** `downfold check`: verifies the metadata of one image; never writes. */
export async function check(file: string, options: CheckCommandOptions): Promise<number> {
  if (options.repair !== undefined)
    notThereYet(`-r ${options.repair}`, `meanwhile 'qemu-img check -r ${options.repair} FILE'`);
  await using opened = await openAlone(file, options.format, options);
  const { image } = opened;
  if (!formatOf(options.format).abilities.has('check')) {
    printError('downfold: This image format does not support checks');
    return EXIT.unsupported;
  }
  const report = await image.check({ onFinding: (finding) => printError(findingLine(finding)) });
  // as qemu-img: -q leaves the exit code alone to speak, whatever the form
  if (options.quiet !== true)
    printResult(options, jsonReport(report, file, image.format), () => humanReport(report));
  return report.corruptions > 0 ? EXIT.corrupt : report.leaks > 0 ? EXIT.leaks : EXIT.clean;
}

function findingLine({ severity, message }: CheckFinding): string {
  return printable(`${severity === 'leak' ? 'Leaked' : 'ERROR'} ${message}`);
}

function jsonReport(report: CheckReport, filename: string, format: string): unknown {
  const counted = (key: string, count: number): Record<string, number> =>
    count === 0 ? {} : { [key]: count };
  return {
    'image-end-offset': report.imageEndOffset,
    'total-clusters': report.totalClusters,
    'check-errors': 0,
    ...counted('corruptions', report.corruptions),
    ...counted('leaks', report.leaks),
    ...counted('allocated-clusters', report.allocatedClusters),
    ...counted('fragmented-clusters', report.fragmentedClusters),
    ...counted('compressed-clusters', report.compressedClusters),
    filename,
    format,
  };
}

function humanReport(report: CheckReport): string {
  const lines: string[] = [];
  const { corruptions, leaks, totalClusters, allocatedClusters } = report;
  if (corruptions === 0 && leaks === 0) lines.push('No errors were found on the image.');
  if (corruptions > 0)
    lines.push(
      '',
      `${corruptions} errors were found on the image.`,
      'Data may be corrupted, or further writes to the image may corrupt it.',
    );
  if (leaks > 0)
    lines.push(
      '',
      `${leaks} leaked clusters were found on the image.`,
      'This means waste of disk space, but no harm to data.',
    );
  const percent = (part: number, whole: number): string =>
    `${((part * 100) / Math.max(whole, 1)).toFixed(2)}%`;
  if (totalClusters > 0 && allocatedClusters > 0)
    lines.push(
      `${allocatedClusters}/${totalClusters} = ${percent(allocatedClusters, totalClusters)} allocated, ` +
        `${percent(report.fragmentedClusters, allocatedClusters)} fragmented, ` +
        `${percent(report.compressedClusters, allocatedClusters)} compressed clusters`,
    );
  return [...lines, `Image end offset: ${report.imageEndOffset}`].join('\n');
}
