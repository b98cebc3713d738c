import { clock } from '@downfold/host';
import { findSnapshot, snapshotsOf } from '../copy/sources.ts';
import { type Access, openAlone, openForWriting } from '../environment.ts';
import { UsageError } from '../failure.ts';
import { snapshotInfo, snapshotTable } from '../output/image-facts.ts';
import { printJson, printResult } from '../output/print.ts';

/** Options of `snapshot`: one of the four, or none, which lists. */
export interface SnapshotOptions extends Access {
  readonly format: string;
  readonly output: string;
  readonly list?: boolean;
  readonly apply?: string;
  readonly create?: string;
  readonly delete?: string;
  readonly quiet?: boolean;
}

/** `downfold snapshot`: lists, takes, applies or deletes internal snapshots. */
export async function snapshot(file: string, options: SnapshotOptions): Promise<number> {
  const { apply, create, delete: gone } = options;
  const wanted = [apply, create, gone, options.list === true ? '' : undefined];
  if (wanted.filter((one) => one !== undefined).length > 1)
    throw new UsageError("Cannot mix '-l', '-a', '-c', '-d'");
  if (wanted.slice(0, 3).every((one) => one === undefined)) return await list(file, options);
  if (options.forceShare === true)
    throw new UsageError('-U reads what others may write; what is changed is locked');
  await using opened = await openForWriting(file, options.format, options);
  const snapshots = snapshotsOf(opened.image, file);
  if (create !== undefined) await snapshots.create({ name: create, date: clock.date() });
  else {
    // what is deleted is gone: as qemu-img, what is called so, and not what has it for an ID
    const first = apply === undefined ? 'name' : 'id';
    const { id } = findSnapshot(await snapshots.list(), apply ?? gone ?? '', file, first);
    await (apply === undefined ? snapshots.delete(id) : snapshots.apply(id));
  }
  if (options.output === 'json') printJson((await snapshots.list()).map(snapshotInfo));
  return 0;
}

/** As qemu-img: of an image without any nothing is said, and what is asked for is said quietly too. */
async function list(file: string, options: SnapshotOptions): Promise<number> {
  // --lock is for who writes
  const { lock: _, ...reading } = options;
  await using opened = await openAlone(file, options.format, reading, { describes: true });
  const { snapshots } = await opened.image.describe();
  if (snapshots.length === 0 && options.output !== 'json') return 0;
  printResult({ ...options, quiet: false }, snapshots.map(snapshotInfo), () =>
    ['Snapshot list:', ...snapshotTable(snapshots)].join('\n'),
  );
  return 0;
}
