import type { SubjectFactory } from '@downfold/compliance';
import { type ByteLength, type HostOffset, hostOffset } from '@downfold/units';
import type { StorageAbility, StorageSubject } from '../src/compliance/index.ts';
import { faulty } from '../src/faults/index.ts';
import {
  type BackendDriver,
  openBackend,
  type Storage,
  type StorageBackend,
  type StorageDriver,
  type WriteOptions,
} from '../src/index.ts';
import { afterPowerCut, FlatDisk, flatBackend } from './flat-backend.ts';

const ABILITIES: ReadonlySet<StorageAbility> = new Set<StorageAbility>([
  'names',
  'write',
  'grow',
  'modified',
  'allocated',
  'discard',
  'resize',
  'locks',
  'sparse',
  'holes',
  'links',
  'special-files',
  'permissions',
  'flush-fault',
  'power-cut',
]);

/** How a subject differs from the flat backend: by its driver, by the backend around it, by what it declares. */
export interface Change {
  readonly without?: readonly StorageAbility[];
  /** Files are put there from outside. */
  readonly placed?: boolean;
  readonly driver?: (driver: BackendDriver) => BackendDriver;
  readonly backend?: (backend: StorageBackend) => StorageBackend;
}

/** Makes subjects of the storage kit: a fresh flat disk each, changed as told. */
export function flatSubjects(change: Change = {}): SubjectFactory<StorageSubject, StorageAbility> {
  const { driver = (one) => one, backend = (one) => one, without = [], placed = false } = change;
  return {
    abilities: new Set([...ABILITIES].filter((ability) => !without.includes(ability))),
    create: async () => {
      const disk = new FlatDisk();
      const faults = faulty(flatBackend(disk));
      return {
        backend: backend(openBackend(driver(faults))),
        directory: '/',
        hooks: {
          ...(placed ? { place: (path, bytes) => place(disk, path, bytes) } : {}),
          link: async (existing, path) => void disk.names.set(path, disk.find(existing)),
          symbolicLink: async (target, path) => void disk.links.set(path, target),
          makeSpecial: async (path) => void disk.specials.add(path),
          othersMayRead: async (path) => !disk.find(path).secret,
          failNextFlush: () => faults.inject({ operation: 'flush' }),
          cutPower: async () => openBackend(flatBackend(afterPowerCut(disk))),
        },
      };
    },
  };
}

async function place(disk: FlatDisk, path: string, bytes: Uint8Array): Promise<void> {
  await using file = await flatBackend(disk).create(path, { secret: false });
  await file.write(hostOffset(0), bytes, 'placed');
}

/** A driver whose files differ: `change` gets the file and says which members are others. */
export function withFiles(
  driver: BackendDriver,
  change: (file: StorageDriver, path: string) => Partial<StorageDriver>,
): BackendDriver {
  const inner = new WeakMap<StorageDriver, StorageDriver>();
  const wrap = (file: StorageDriver, path: string): StorageDriver => {
    const members: StorageDriver = {
      label: file.label,
      writable: file.writable,
      supports: file.supports,
      identity: file.identity,
      descriptor: null,
      length: () => file.length(),
      read: (...of) => file.read(...of),
      runAt: (...of) => file.runAt(...of),
      write: (...of) => file.write(...of),
      writeZeroes: (...of) => file.writeZeroes(...of),
      copyFrom: (...of) => file.copyFrom(...of),
      discard: (...of) => file.discard(...of),
      setLength: (...of) => file.setLength(...of),
      flush: (...of) => file.flush(...of),
      [Symbol.asyncDispose]: async () => file[Symbol.asyncDispose](),
      ...change(file, path),
    };
    const changed: StorageDriver = {
      ...members,
      // the driver below knows only its own files
      copyFrom: (pieces, ...of) =>
        members.copyFrom(
          pieces.map((piece) => ({ ...piece, source: inner.get(piece.source) ?? piece.source })),
          ...of,
        ),
    };
    inner.set(changed, file);
    return changed;
  };
  return {
    ...driver,
    open: async (path, mode) => wrap(await driver.open(path, mode), path),
    create: async (path, options) => wrap(await driver.create(path, options), path),
  };
}

/** A backend whose open files differ. */
export function withStorages(
  backend: StorageBackend,
  change: (storage: Storage, path: string) => Partial<Storage>,
): StorageBackend {
  const wrap = (storage: Storage, path: string): Storage => ({
    ...forwarding(() => storage),
    ...change(storage, path),
  });
  return {
    ...backend,
    open: async (path, mode) => wrap(await backend.open(path, mode), path),
    create: async (path, options) => wrap(await backend.create(path, options), path),
  };
}

/** A storage that asks for each operation which one is behind it. */
export function forwarding(behind: () => Storage): Storage {
  const { label, writable, supports, identity } = behind();
  return {
    label,
    writable,
    supports,
    identity,
    descriptor: null,
    length: () => behind().length(),
    read: (...of) => behind().read(...of),
    runAt: (...of) => behind().runAt(...of),
    write: (...of) => behind().write(...of),
    writeZeroes: (...of) => behind().writeZeroes(...of),
    copyFrom: (...of) => behind().copyFrom(...of),
    discard: (...of) => behind().discard(...of),
    setLength: (...of) => behind().setLength(...of),
    flush: (...of) => behind().flush(...of),
    [Symbol.asyncDispose]: async () => behind()[Symbol.asyncDispose](),
  };
}

/** A driver's `copyFrom` that does one piece at a time. */
export function oneByOne(
  copy: (
    source: StorageDriver,
    from: HostOffset,
    to: HostOffset,
    length: ByteLength,
    what: string,
  ) => Promise<number>,
): StorageDriver['copyFrom'] {
  return async ([first], what) =>
    first === undefined ? 0 : copy(first.source, first.from, first.to, first.length, what);
}

/** A storage's `copyFrom`, piece by piece. */
export function eachPiece(
  copy: (
    source: Storage,
    from: HostOffset,
    to: HostOffset,
    length: ByteLength,
    options: WriteOptions | undefined,
  ) => Promise<void>,
): Storage['copyFrom'] {
  return async (pieces, options) => {
    for (const { source, from, to, length } of pieces)
      await copy(source, from, to, length, options);
  };
}
