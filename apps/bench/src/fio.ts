/** Reads of 4 KiB at random places of a disk, as fio does them. */
export interface RandomReads {
  /** Of the disk. */
  readonly mebibytes: number;
  /** Requests under way at once, of each job. */
  readonly depth: number;
  readonly jobs: number;
  /** Reads of each job. */
  readonly count: number;
}

/** fio's command line, without where its report goes. */
export function fioReads(uri: string, { mebibytes, depth, jobs, count }: RandomReads): string[] {
  return [
    ...['--name=r', '--ioengine=nbd', `--uri=${uri}`, '--rw=randread', '--bs=4k', '--thread'],
    ...[`--size=${mebibytes}m`, `--iodepth=${depth}`, `--numjobs=${jobs}`, '--randseed=3'],
    `--number_ios=${count}`,
  ];
}
