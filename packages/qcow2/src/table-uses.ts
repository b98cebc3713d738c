import { imageError } from './corrupt.ts';
import { USE } from './host-counts.ts';
import type { Report } from './l2-counter.ts';
import { SAFE_LIMITS } from './limits.ts';
import type { Qcow2State } from './state.ts';
import { entryOffset, HIGH_COPIED, l1Reserved, SECTOR_BYTES } from './structures.ts';

/** References to L2 tables: offset (a multiple of 512) plus who refers, so that sorting brings together those to one table. */
const FROM_SNAPSHOT = 0;
const FROM_ACTIVE_COPIED = 1;
const FROM_ACTIVE_SHARED = 2;

/** One L2 table, and the references to it. */
export interface TableUse {
  readonly offset: number;
  readonly references: number;
  /** What the active L1 table says of it; 0: only snapshots refer to it. */
  readonly said: number;
}

/** Notes which L2 tables the L1 table at byte `at` refers to. Active: it is the disk's own, not a snapshot's. */
export function collectTables(
  state: Qcow2State,
  l1: Uint32Array,
  at: number,
  active: boolean,
  uses: number[],
  report: Report,
): void {
  for (let index = 0; index < l1.length; index += 2) {
    const [high, low] = [l1[index] as number, l1[index + 1] as number];
    if (high === 0 && low === 0) continue;
    if (l1Reserved(high, low)) report('reserved bits are set in an L1 entry', at + index * 4);
    const offset = entryOffset(high, low);
    if (offset <= 0) {
      report('L1 entry without a table that can be', at + index * 4);
      continue;
    }
    const from = active
      ? (high & HIGH_COPIED) !== 0
        ? FROM_ACTIVE_COPIED
        : FROM_ACTIVE_SHARED
      : FROM_SNAPSHOT;
    uses.push(offset + from);
  }
  if (uses.length > SAFE_LIMITS.l2Tables)
    throw imageError('IMAGE_LIMIT', state.label, `${uses.length} references to L2 tables`);
}

/** The tables of sorted references, in the order of the file. */
export function* tableUses(sorted: Float64Array): Generator<TableUse> {
  for (let first = 0, end = 0; first < sorted.length; first = end) {
    const use = sorted[first] as number;
    const offset = use - (use % SECTOR_BYTES);
    let said = 0;
    for (; end < sorted.length && (sorted[end] as number) < offset + SECTOR_BYTES; end++) {
      const from = (sorted[end] as number) - offset;
      if (from === FROM_ACTIVE_COPIED) said |= USE.copied;
      if (from === FROM_ACTIVE_SHARED) said |= USE.shared;
    }
    yield { offset, references: end - first, said };
  }
}
