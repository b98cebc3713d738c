import type { CommandCounters, ExportCounters } from './export-counters.ts';

/** The four kinds of requests that QEMU counts, with the commands of NBD that are such. */
const KINDS = {
  rd: ['read'],
  wr: ['write', 'write_zeroes'],
  flush: ['flush'],
  unmap: ['trim'],
} as const;
type Kind = keyof typeof KINDS;

/** How QEMU counts one kind, by the names of its members. */
const figuresOf = (kind: Kind, counters: readonly CommandCounters[]): object => {
  const sum = (of: (one: CommandCounters) => number): number =>
    Math.round(counters.reduce((total, one) => total + of(one), 0));
  const failed = sum(({ errors }) => errors.reduce((total, [, count]) => total + count, 0));
  return {
    ...(kind === 'flush' ? {} : { [`${kind}_bytes`]: sum(({ bytes }) => bytes) }),
    ...(kind === 'flush' ? {} : { [`${kind}_merged`]: 0 }),
    [`${kind}_operations`]: sum(({ requests }) => requests) - failed,
    [`${kind}_total_time_ns`]: sum(({ duration }) => duration.sum * 1e9),
    [`failed_${kind}_operations`]: failed,
    [`invalid_${kind}_operations`]: 0,
  };
};

/** What became of the requests of a disk's exports, as QEMU tells it. @param end bytes of the file, all that was ever written to it */
export function blockStats(exports: readonly ExportCounters[], end = 0): object {
  const commands = exports.flatMap(({ commands: all }) => all);
  const figures = Object.entries(KINDS).map(([kind, names]) =>
    figuresOf(
      kind as Kind,
      commands.filter(({ command }) => names.some((name) => name === command)),
    ),
  );
  return {
    ...Object.assign({}, ...figures),
    wr_highest_offset: end,
    account_invalid: false,
    account_failed: true,
    timed_stats: [],
  };
}
