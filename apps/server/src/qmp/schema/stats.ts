import { bool, int, lazy, list, optional, str, struct, type Type } from '@downfold/qmp';

/** What became of requests. Members without a meaning here are there because clients expect them. */
const deviceStats: Type<object> = struct(
  {
    ...Object.fromEntries(
      ['rd', 'wr', 'unmap'].flatMap((kind) => [
        [`${kind}_bytes`, int],
        [`${kind}_merged`, int],
      ]),
    ),
    ...Object.fromEntries(
      ['rd', 'wr', 'flush', 'unmap'].flatMap((kind) => [
        [`${kind}_operations`, int],
        [`${kind}_total_time_ns`, int],
        [`failed_${kind}_operations`, int],
        [`invalid_${kind}_operations`, int],
      ]),
    ),
    wr_highest_offset: int,
    account_invalid: bool,
    account_failed: bool,
    timed_stats: list(struct({}, 'BlockDeviceTimedStats')),
  },
  'BlockDeviceStats',
);

/** What is told of the requests of a node. */
export const blockStats: Type<object> = struct(
  {
    'node-name': optional(str),
    stats: deviceStats,
    parent: optional(lazy(() => blockStats)),
  },
  'BlockStats',
);
