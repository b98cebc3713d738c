import { printable } from '@downfold/chain';
import type { CheckFinding, CheckReport } from '@downfold/image';
import { qcow2, type RepairReport, type RepairScope } from '@downfold/qcow2';
import { type Access, formatOf, IMAGE_LIMITS, openAlone, openFileToWrite } from '../environment.ts';
import { UsageError } from '../failure.ts';
import { twoDecimals } from '../output/bytes.ts';
import { printError, printResult } from '../output/print.ts';

/** Options of `check`. */
export interface CheckCommandOptions extends Access {
  readonly format: string;
  readonly output: string;
  readonly repair?: RepairScope;
  readonly quiet?: boolean;
}

/** qemu-img's: 0 clean, 2 corruption, 3 only leaks, 63 the format has nothing to check (1: could not check). */
const EXIT = { clean: 0, corrupt: 2, leaks: 3, unsupported: 63 } as const;

/** `downfold check`: verifies the metadata of one image; writes only with `-r`. */
export async function check(file: string, options: CheckCommandOptions): Promise<number> {
  const { repair: scope } = options;
  if (scope !== undefined && options.forceShare === true)
    throw new UsageError("'-r' repairs an image that nobody else uses: it does not go with -U");
  if (!formatOf(options.format).abilities.has('check')) {
    await using _ = await openAlone(file, options.format, options);
    printError('downfold: This image format does not support checks');
    return EXIT.unsupported;
  }
  return scope === undefined ? checkOnly(file, options) : checkAndRepair(file, options, scope);
}

async function checkOnly(file: string, options: CheckCommandOptions): Promise<number> {
  await using opened = await openAlone(file, options.format, options);
  const report = await opened.image.check({ onFinding });
  tell(options, jsonReport(report, file, opened.image.format), () => humanReport(report));
  return exitCode(report);
}

async function checkAndRepair(
  file: string,
  options: CheckCommandOptions,
  scope: RepairScope,
): Promise<number> {
  await using opened = await openFileToWrite(file, options);
  const { storage, openDataFile } = opened;
  const how = { scope, limits: IMAGE_LIMITS, openDataFile, onFinding, onLeft: onFinding };
  const report = await qcow2.repair(storage, how);
  const { left, leaksFixed, corruptionsFixed } = report;
  const fixed = {
    ...counted('leaks-fixed', leaksFixed),
    ...counted('corruptions-fixed', corruptionsFixed),
  };
  tell(options, { ...jsonReport(left, file, options.format), ...fixed }, () =>
    Object.keys(fixed).length === 0
      ? humanReport(left)
      : `${fixedReport(report)}\n${humanReport(left)}`,
  );
  return exitCode(left);
}

/** As qemu-img: -q leaves the exit code alone to speak, whatever the form. */
function tell(options: CheckCommandOptions, value: unknown, human: () => string): void {
  if (options.quiet !== true) printResult(options, value, human);
}

function exitCode({ corruptions, leaks }: CheckReport): number {
  return corruptions > 0 ? EXIT.corrupt : leaks > 0 ? EXIT.leaks : EXIT.clean;
}

function onFinding(finding: CheckFinding): void {
  printError(findingLine(finding));
}

function findingLine({ severity, message }: CheckFinding): string {
  return printable(`${severity === 'leak' ? 'Leaked' : 'ERROR'} ${message}`);
}

/** As qemu-img: what is 0 is left out. */
function counted(key: string, count: number): Record<string, number> {
  return count === 0 ? {} : { [key]: count };
}

function jsonReport(
  report: CheckReport,
  filename: string,
  format: string,
): Record<string, unknown> {
  return {
    'image-end-offset': report.imageEndOffset,
    ...counted('total-clusters', report.totalClusters),
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

function fixedReport({ leaksFixed, corruptionsFixed }: RepairReport): string {
  return [
    'The following inconsistencies were found and repaired:',
    '',
    `    ${leaksFixed} leaked clusters`,
    `    ${corruptionsFixed} corruptions`,
    '',
    'Double checking the fixed image now...',
  ].join('\n');
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
    `${twoDecimals((part * 100) / Math.max(whole, 1))}%`;
  if (totalClusters > 0 && allocatedClusters > 0)
    lines.push(
      `${allocatedClusters}/${totalClusters} = ${percent(allocatedClusters, totalClusters)} allocated, ` +
        `${percent(report.fragmentedClusters, allocatedClusters)} fragmented, ` +
        `${percent(report.compressedClusters, allocatedClusters)} compressed clusters`,
    );
  return [...lines, `Image end offset: ${report.imageEndOffset}`].join('\n');
}
