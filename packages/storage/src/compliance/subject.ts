import assert from 'node:assert/strict';
import type { CaseContext, ComplianceCase } from '@downfold/compliance';
import { type ByteLength, byteLength, type HostRange, hostOffset } from '@downfold/units';
import type { StorageBackend } from '../backend.ts';
import { StorageError, type StorageErrorCode } from '../errors.ts';
import type { CopyPiece, Storage } from '../storage.ts';

/**
 * What a backend may be able to do. Who lacks `names` or `grow` has `hooks.place`; the last five need a hook too.
 * - `names`: files are created, renamed, removed and listed, in directories.
 * - `write`: files can be opened for writing.
 * - `grow`: a write past the end of a file grows it.
 * - `discard`, `resize`: as `Storage.supports` of its files.
 * - `modified`, `allocated`: `facts` knows them.
 * - `locks`: `lock` works.
 * - `sparse`: a hole of terabytes takes no space and no time.
 * - `holes`: `runAt` tells them from bytes.
 * - `links`: `hooks.link` and `hooks.symbolicLink`.
 * - `special-files`: `hooks.makeSpecial`.
 * - `permissions`: `hooks.othersMayRead`.
 * - `flush-fault`: `hooks.failNextFlush`.
 * - `power-cut`: `hooks.cutPower`.
 */
export type StorageAbility =
  | 'names'
  | 'write'
  | 'grow'
  | 'discard'
  | 'resize'
  | 'modified'
  | 'allocated'
  | 'locks'
  | 'sparse'
  | 'holes'
  | 'links'
  | 'special-files'
  | 'permissions'
  | 'flush-fault'
  | 'power-cut';

/** What a case needs that makes files of its own. */
export const MAKES_FILES: readonly StorageAbility[] = ['names', 'write', 'grow'];

/** What cases need done to a backend's place that the backend itself cannot do. */
export interface StorageHooks {
  /** Puts a file there, as others do that a backend without `names` or `grow` depends on. */
  place(path: string, bytes: Uint8Array): Promise<void>;
  /** Gives an existing file a second name. */
  link(existing: string, path: string): Promise<void>;
  /** Makes a symbolic link at `path`. */
  symbolicLink(target: string, path: string): Promise<void>;
  /** Makes a FIFO, or anything else that is neither a file nor a directory nor a block device. */
  makeSpecial(path: string): Promise<void>;
  /** Whether others than the owner may read the file. */
  othersMayRead(path: string): Promise<boolean>;
  /** The next flush of a file, whichever, fails once; the ones after it would succeed. `@downfold/storage/faults` does this for any driver. */
  failNextFlush(): void;
  /** A backend on what the power cut left: of what may be lost, all. */
  cutPower(): Promise<StorageBackend>;
}

/** What the kit is run on. */
export interface StorageSubject {
  readonly backend: StorageBackend;
  /** Path of an existing, empty directory, with every link resolved; a path and a name below it are joined by `/`. */
  readonly directory: string;
  readonly hooks?: Partial<StorageHooks>;
}

/** A case of the storage kit. */
export type StorageCase = ComplianceCase<StorageSubject, StorageAbility>;

/** The path of `name` in the subject's directory. */
export function pathOf(subject: StorageSubject, name: string): string {
  return subject.directory.endsWith('/')
    ? `${subject.directory}${name}`
    : `${subject.directory}/${name}`;
}

/** A new, open file. */
export function createFile(subject: StorageSubject, name = 'file'): Promise<Storage> {
  return subject.backend.create(pathOf(subject, name), { secret: false });
}

/** A file that holds `bytes`, open for reading. */
export async function openWith(
  subject: StorageSubject,
  bytes: Uint8Array,
  name = 'file',
): Promise<Storage> {
  const path = pathOf(subject, name);
  if (subject.hooks?.place === undefined)
    await (await createWith(subject, bytes, name))[Symbol.asyncDispose]();
  else await subject.hooks.place(path, bytes);
  return await subject.backend.open(path, 'read');
}

/** A new file that holds `bytes`, open for writing. */
export async function createWith(
  subject: StorageSubject,
  bytes: Uint8Array,
  name = 'file',
): Promise<Storage> {
  if (subject.hooks?.place !== undefined) {
    await subject.hooks.place(pathOf(subject, name), bytes);
    return await subject.backend.open(pathOf(subject, name), 'write');
  }
  const file = await createFile(subject, name);
  await file.write(hostOffset(0), bytes);
  return file;
}

/** All bytes of a file. */
export async function contentOf(file: Storage): Promise<Uint8Array> {
  return await readAt(file, 0, await file.length());
}

/** `length` bytes from `offset`. What is not filled stays 0xEE. */
export async function readAt(file: Storage, offset: number, length: number): Promise<Uint8Array> {
  const target = new Uint8Array(length).fill(0xee);
  await file.read(hostOffset(offset), target);
  return target;
}

/** `length` bytes that are never zero, drawn from the seed. */
export function nonZeroBytes(context: CaseContext, length: number): Uint8Array {
  return context.bytes(length).map((byte) => byte || 1);
}

/** The range of `length` bytes from `offset`. */
export function rangeAt(offset: number, length: number): HostRange {
  return { offset: hostOffset(offset), length: byteLength(length) };
}

/** A piece of a copy, of plain numbers. */
export function pieceOf(source: Storage, from: number, to: number, length: number): CopyPiece {
  return { source, from: hostOffset(from), to: hostOffset(to), length: byteLength(length) };
}

/** `copyFrom` of one piece, with plain numbers. */
export function copy(
  target: Storage,
  source: Storage,
  from: number,
  to: number,
  length: number,
): Promise<void> {
  return target.copyFrom([pieceOf(source, from, to, length)]);
}

/** `setLength` with a plain number. */
export function setLength(file: Storage, length: number): Promise<void> {
  return file.setLength(length as ByteLength);
}

/** Passes when `action` rejects with a StorageError of this code. */
export async function assertRefused(
  code: StorageErrorCode,
  what: string,
  action: () => Promise<unknown>,
): Promise<StorageError> {
  try {
    await action();
  } catch (cause) {
    if (!(cause instanceof StorageError))
      throw new Error(`${what}: rejected with no StorageError`, { cause });
    assert.equal(cause.code, code, `${what}: ${cause.message}`);
    return cause;
  }
  throw new Error(`${what}: was not refused with ${code}`);
}

/** The hook of a subject that declares the ability for it. */
export function hookOf<Name extends keyof StorageHooks>(
  subject: StorageSubject,
  name: Name,
): StorageHooks[Name] {
  const hook = subject.hooks?.[name];
  if (hook === undefined) throw new Error(`the ability is declared, but there is no hooks.${name}`);
  return hook;
}
