import { HARD_LIMITS } from './limits.ts';
import { type Snapshot, snapshotTableBytes } from './snapshots.ts';
import type { Qcow2State } from './state.ts';

/** Something wrong with the snapshot table that a repair puts right, as QEMU's does: a corruption each. */
interface Damage {
  readonly kind: 'incomplete' | 'extra' | 'beyond';
  readonly message: string;
  /** Byte of the entry in the file. */
  readonly offset: number;
}

/**
 * What is wrong with the snapshot table, of which `snapshots` is what can be kept:
 * - `incomplete`: an entry of version 3 that does not say how large the disk was, as it must. In version 2 none does: there all disks are as large
 *   as the present one.
 * - `extra`, `beyond`: an entry with more extra data than anybody takes; one behind the longest table that anybody reads. Only a repair sees these;
 *   others refuse the table.
 */
export function damagesOf(
  { header, mending }: Qcow2State,
  snapshots: readonly Snapshot[],
): readonly Damage[] {
  const damages: Damage[] = [];
  for (const [index, { diskSize, extraSize, entryAt: offset }] of snapshots.entries()) {
    const entry = `snapshot table entry ${index}`;
    if (diskSize === null && header.version !== 2)
      damages.push({ kind: 'incomplete', message: `${entry} is incomplete`, offset });
    if (extraSize > HARD_LIMITS.snapshotExtra)
      damages.push({
        kind: 'extra',
        message: `${entry} has ${extraSize} bytes of extra data, above the limit`,
        offset,
      });
  }
  const end = header.snapshotsOffset + snapshotTableBytes(snapshots);
  for (let index = snapshots.length; mending && index < header.nbSnapshots; index++)
    damages.push({
      kind: 'beyond',
      message: `snapshot table entry ${index} lies behind 64 MiB of the table`,
      offset: end,
    });
  return damages;
}
