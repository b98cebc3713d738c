import { alignUp, hostOffset } from '@downfold/units';
import type { Snapshot } from './snapshots.ts';
import type { Qcow2State } from './state.ts';
import { SNAPSHOT_ALIGNMENT, snapshotExtra, snapshotHead } from './structures.ts';

/** A number above all others, as QEMU gives them. */
export function freeId(snapshots: readonly Snapshot[]): string {
  const numbers = snapshots.map(({ id }) => Number.parseInt(id, 10) || 0);
  return String(Math.max(0, ...numbers) + 1);
}

/** A snapshot table entry for the image's present mapping: its L1 table as it lies. */
export function encodeSnapshot(
  image: Qcow2State,
  about: { readonly name: string; readonly id: string; readonly milliseconds: number },
): Uint8Array {
  const { l1TableOffset, l1Size, size } = image.header;
  const text = new TextEncoder();
  const [id, name] = [text.encode(about.id), text.encode(about.name)];
  const namesAt = snapshotHead.size + snapshotExtra.size;
  const length = alignUp(namesAt + id.length + name.length, SNAPSHOT_ALIGNMENT);
  const entry = new Uint8Array(length);
  snapshotHead.encode(
    {
      l1TableOffset,
      l1Size,
      idLength: id.length,
      nameLength: name.length,
      seconds: Math.floor(about.milliseconds / 1000),
      nanoseconds: (about.milliseconds % 1000) * 1e6,
      clock: [0, 0],
      stateSize: 0,
      extraSize: snapshotExtra.size,
    },
    entry,
  );
  snapshotExtra.encode(
    { largeStateSize: [0, 0], diskSize: size, instructions: [0xffff_ffff, 0xffff_ffff] },
    entry,
    snapshotHead.size,
  );
  entry.set(id, namesAt);
  entry.set(name, namesAt + id.length);
  return entry;
}

/** The bytes of each snapshot's entry as they are in the file, padded: what nobody here knows in them stays. */
export function entriesOf(
  state: Qcow2State,
  snapshots: readonly Snapshot[],
): Promise<readonly Uint8Array[]> {
  return Promise.all(
    snapshots.map(async ({ entryAt, entryBytes }) => {
      const entry = new Uint8Array(entryBytes);
      await state.storage.read(hostOffset(entryAt), entry);
      return entry;
    }),
  );
}
