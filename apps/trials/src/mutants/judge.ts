import type { CheckFinding, CheckReport } from '@downfold/image';
import { type Qcow2, qcow2 } from '@downfold/qcow2';
import { type BackendDriver, openBackend, type StorageBackend } from '@downfold/storage';
import { type DiskObserver, type MemoryDisk, memoryBackendDriver } from '@downfold/storage-memory';
import { byteLength, guestOffset } from '@downfold/units';
import { Attempt, type Refusal } from './attempt.ts';
import type { MemoryMeter } from './meter.ts';
import { refcountIn } from './refcount-in.ts';
import { DATA, IMAGE } from './seed-images.ts';

/** Disks up to this long are read whole, others at their start and their end. Bytes. */
const WHOLE = 1 << 20;
const ENDS = 128 << 10;
const MOST_EXTENTS = 20_000;
/** Reads from this length on are looked at while they run: buffers are made to be read into. */
const LARGE = 1 << 16;

/** A finding that hides others: what overlaps is not looked into until it no longer does, and then says more. */
const OVERLAP = /overlaps other metadata/;
/** What QEMU, too, leaves when one of two entries of the disk itself that lead to one cluster is written: the other could be written in place, and is copied. */
const FLAG_LEFT = /^cluster (\d+): a copied flag is wrong for refcount 1$/;
const TOGETHER = /refcount=\d+ reference=|points to metadata|overlaps other metadata/;

/** What became of a mutant. */
export interface Judged {
  /** It was opened, mapped and read. */
  readonly accepted: boolean;
  /** The whole disk; null when it was refused or is too long. */
  readonly view: Uint8Array | null;
  readonly refusals: readonly Refusal[];
  readonly faults: readonly string[];
}

/** Works on an image as a user would, first for reading, then, on copies, for writing; says what is wrong with how that went. */
export async function judge(disk: MemoryDisk, meter: MemoryMeter): Promise<Judged> {
  meter.exact = false;
  let judged = await judgeOnce(disk, new Attempt(IMAGE, meter), meter);
  // a machine that was busy elsewhere is no fault of ours, nor is garbage of before: what only cost too much gets two more looks
  for (let looks = 2; looks > 0 && judged.faults.length > 0 && judged.onlyCosts; looks--) {
    meter.exact = true;
    judged = await judgeOnce(disk, new Attempt(IMAGE, meter), meter);
  }
  return judged;
}

async function judgeOnce(
  disk: MemoryDisk,
  attempt: Attempt,
  meter: MemoryMeter,
): Promise<Judged & { readonly onlyCosts: boolean }> {
  const before = await readOnly(disk, attempt, meter, 'all');
  await change(disk, attempt, meter, before);
  await repair(disk.copy(), attempt, meter, before);
  const { accepted, view } = before;
  const { refusals, faults, onlyCosts } = attempt;
  return { accepted, view, refusals, faults, onlyCosts };
}

/** What reading told. */
interface Read {
  readonly accepted: boolean;
  readonly view: Uint8Array | null;
  /** Null: there was no check. */
  readonly corruptions: number | null;
  /** A check told that guest data lies where nothing else does, and is counted: what is written shows nowhere else. */
  readonly apart: boolean;
}

const NOTHING: Read = { accepted: false, view: null, corruptions: null, apart: false };

/** What is looked at: `disk` what it shows, `check` also whether it is sound, `all` what else it says of itself. */
type Look = 'disk' | 'check' | 'all';

/** @param was as it was before it was changed: a flag that is missing since of a cluster that was shared then counts for nothing */
async function readOnly(
  disk: MemoryDisk,
  attempt: Attempt,
  meter: MemoryMeter,
  at: Look,
  was: MemoryDisk | null = null,
): Promise<Read> {
  const backend = metered(disk, meter, (what) => attempt.fault(`opened for reading, it ${what}`));
  const image = await attempt.part('open', () => openIn(backend, 'read'));
  if (image === null) return NOTHING;
  await using _ = image;
  const read = await attempt.part('read', () => look(image));
  let [together, left] = [false, 0];
  const onFinding = ({ severity, message }: CheckFinding): void => {
    if (severity === 'leak') return;
    together ||= TOGETHER.test(message);
    const [, cluster] = FLAG_LEFT.exec(message) ?? [];
    if (was !== null && cluster !== undefined && refcountIn(was, Number(cluster)) > 1) left++;
  };
  const check = (): Promise<CheckReport> => image.check({ onFinding });
  const report = at === 'disk' ? null : await attempt.part('check', check);
  if (at === 'all') await attempt.part('facts', () => facts(image));
  const corruptions = report === null ? null : report.corruptions - left;
  const apart = report !== null && !together;
  return { accepted: read !== null, view: read?.view ?? null, corruptions, apart };
}

async function look(image: Qcow2): Promise<{ readonly view: Uint8Array | null }> {
  const { virtualSize } = image.geometry;
  let extents = 0;
  for await (const batch of image.extents({ offset: guestOffset(0), length: virtualSize })) {
    extents += batch.length;
    if (extents > MOST_EXTENTS) break;
  }
  if (virtualSize <= WHOLE) return { view: await readAt(image, 0, virtualSize) };
  await readAt(image, 0, ENDS);
  await readAt(image, virtualSize - ENDS, ENDS);
  return { view: null };
}

/** What else an image says of itself. */
async function facts(image: Qcow2): Promise<void> {
  await image.describe();
  for (const { name, inconsistent } of await image.bitmaps.list())
    if (!inconsistent) await image.bitmaps.content(name);
  for (const { id } of (await image.snapshots.list()).slice(0, 3)) {
    const snapshot = await image.snapshots.open(id);
    await readAt(snapshot, 0, Math.min(ENDS, snapshot.geometry.virtualSize));
  }
}

/** Writes into it. A sound image takes that, shows it and nothing else new, and is sound after; another one shows no less than before when it refuses. */
async function change(
  was: MemoryDisk,
  attempt: Attempt,
  meter: MemoryMeter,
  before: Read,
): Promise<void> {
  const disk = was.copy();
  const backend = metered(disk, meter);
  const asked: Asked[] = [];
  const done = await attempt.part('write', async () => {
    await using image = await openIn(backend, 'write');
    for (const one of toAsk(image)) {
      asked.push(one);
      await ask(image, one);
    }
    await image.flush();
    return true;
  });
  const sound = before.accepted && before.corruptions === 0 && !attempt.refused('facts');
  if (sound && done === null && !attempt.refused('write', 'IMAGE_NEEDS_REPAIR'))
    attempt.fault('a sound image takes no writes');
  // one that is not sound may show at one place what was written at another: only of a first write is known what it must not change
  const told = sound || (done === null && asked.length <= 1 && before.apart);
  if (!before.accepted || !told) return;
  const after = await readOnly(disk, attempt, meter, sound ? 'check' : 'disk', was);
  if (sound && after.corruptions !== 0)
    attempt.fault(`writing left ${after.corruptions} corruptions`);
  if (!after.accepted) attempt.fault('after a refused write it is not read any more');
  if (before.view === null || after.view === null) return;
  const wrong = done
    ? differs(after.view, shown(before.view, asked))
    : neither(after.view, before.view, asked);
  if (wrong !== null)
    attempt.fault(`after ${done ? 'writes' : 'a refused write'} byte ${wrong} reads otherwise`);
}

/** A run of guest bytes that all become `byte`, in one of three ways. */
interface Asked {
  readonly how: 'write' | 'zero' | 'deallocate';
  readonly at: number;
  readonly length: number;
  readonly byte: number;
}

const FILL = 0x5a;

/** What is asked of an image: to write, to zero and to deallocate, as far as its disk reaches. */
function toAsk({ geometry }: Qcow2): readonly Asked[] {
  const { virtualSize, allocationGranularity: unit } = geometry;
  const last = Math.floor(Math.min(virtualSize, WHOLE) / unit) * unit - unit;
  const all: readonly Asked[] = [
    { how: 'write', at: 700, length: 1500, byte: FILL },
    { how: 'write', at: 19_000, length: 6000, byte: FILL },
    { how: 'write', at: virtualSize - 100, length: 100, byte: FILL },
    { how: 'zero', at: 512, length: 1024, byte: 0 },
    { how: 'deallocate', at: last, length: unit, byte: 0 },
  ];
  return all
    .map((one) => ({ ...one, length: Math.min(one.length, virtualSize - one.at) }))
    .filter(({ at, length }) => at >= 0 && length > 0);
}

async function ask(image: Qcow2, { how, at, length, byte }: Asked): Promise<void> {
  const range = { offset: guestOffset(at), length: byteLength(length) };
  if (how === 'write')
    await image.write(range.offset, new Uint8Array(length).fill(byte), { fill: null });
  else if (how === 'zero') await image.writeZeroes(range, { fill: null });
  else await image.deallocate(range);
}

/** What a disk shows when it took all that was asked of it. */
function shown(before: Uint8Array, asked: readonly Asked[]): Uint8Array {
  const view = Uint8Array.from(before);
  for (const { at, length, byte } of asked) view.fill(byte, at, at + length);
  return view;
}

/** The first byte of `view` that is neither as before nor as anything that was asked made it; null: there is none. */
function neither(view: Uint8Array, before: Uint8Array, asked: readonly Asked[]): number | null {
  const may = (byte: number, at: number): boolean =>
    byte === before[at] ||
    asked.some((one) => byte === one.byte && at >= one.at && at < one.at + one.length);
  if (view.length !== before.length) return Math.min(view.length, before.length);
  const wrong =
    Buffer.compare(view, before) === 0 ? -1 : view.findIndex((byte, at) => !may(byte, at));
  return wrong < 0 ? null : wrong;
}

/** The first byte in which two views differ; null: there is none. */
function differs(view: Uint8Array, wanted: Uint8Array): number | null {
  if (Buffer.compare(view, wanted) === 0) return null;
  const wrong = view.findIndex((byte, at) => byte !== wanted[at]);
  return wrong < 0 ? view.length : wrong;
}

/** Repairs it; what could be read must read the same, and no more may be wrong. */
async function repair(
  disk: MemoryDisk,
  attempt: Attempt,
  meter: MemoryMeter,
  before: Read,
): Promise<void> {
  const backend = metered(disk, meter);
  let hidden = false;
  const report = await attempt.part('repair', async () => {
    await using storage = await backend.open(IMAGE, 'write');
    const openDataFile = (): ReturnType<StorageBackend['open']> => backend.open(DATA, 'write');
    return await qcow2.repair(storage, {
      scope: 'all',
      openDataFile,
      onFinding: ({ severity, message }) => {
        if (severity !== 'leak') hidden ||= OVERLAP.test(message);
      },
    });
  });
  if (report !== null && report.left.corruptions > report.found.corruptions && !hidden)
    attempt.fault(`repair made ${report.found.corruptions} corruptions ${report.left.corruptions}`);
  if (!before.accepted || before.view === null) return;
  const after = await readOnly(disk, attempt, meter, 'disk');
  if (after.view === null || differs(after.view, before.view) !== null)
    attempt.fault(`after a ${report === null ? 'refused ' : ''}repair it reads otherwise`);
}

async function openIn(backend: StorageBackend, mode: 'read' | 'write'): Promise<Qcow2> {
  const storage = await backend.open(IMAGE, mode);
  const openDataFile = (): ReturnType<StorageBackend['open']> => backend.open(DATA, mode);
  return await qcow2.open(storage, { mode, openDataFile });
}

async function readAt(image: Pick<Qcow2, 'read'>, at: number, length: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(length);
  await image.read(guestOffset(at), bytes, null);
  return bytes;
}

/** A disk's files; `meter` looks at memory when much is read, `onChange` is told of each change. */
function metered(
  disk: MemoryDisk,
  meter: MemoryMeter,
  onChange: (what: string) => void = () => {},
): StorageBackend {
  const observer: DiskObserver = {
    changed: (change) => onChange(`did '${change.do}' of ${change.what}`),
    flushing: () => () => {},
    renamed: ({ do: what }) => onChange(what),
    flushingDirectory: () => () => {},
  };
  const driver: BackendDriver = memoryBackendDriver(disk, observer);
  return openBackend({
    ...driver,
    open: async (path, mode) => {
      const file = await driver.open(path, mode);
      const read = file.read.bind(file);
      file.read = (offset, target) => {
        if (target.length >= LARGE) meter.sample();
        return read(offset, target);
      };
      return file;
    },
  });
}
