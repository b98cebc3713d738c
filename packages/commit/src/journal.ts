import { posix } from 'node:path';
import { crc32 } from 'node:zlib';
import type { LayerFacts, NodeId } from '@downfold/chain';
import type { BackingReference, StagingToken } from '@downfold/image';
import {
  isUrl,
  type OpenMode,
  pathBeside,
  type Storage,
  type StorageBackend,
  StorageError,
} from '@downfold/storage';
import { byteLength, hostOffset } from '@downfold/units';
import { CommitError } from './errors.ts';
import { isTornIntent } from './journal-torn.ts';
import type { CommitPlan } from './plan.ts';
import type { Cursor } from './step.ts';

/** Who runs a job: enough to tell whether it still does. */
export interface JournalOwner {
  readonly host: string;
  /** Changes with every boot of the host. */
  readonly bootId: string;
  readonly pid: number;
  /** When the process started, in whatever unit the system counts: an id is given to another process later. Absent: not known. */
  readonly started?: string;
}

/** One record of a journal. */
export type JournalRecord =
  /** The job and its plan; paths of images are relative to the journal's directory. A torn one is known by its first fields. */
  | {
      readonly type: 'INTENT';
      readonly format: 1;
      readonly job: string;
      readonly owner: JournalOwner;
      readonly plan: CommitPlan;
      /** What is written is to be compared before anything is relinked, whoever goes on. */
      readonly verify?: boolean;
    }
  /** From the next write on these images no longer represent any point in time. */
  | { readonly type: 'INVALIDATES'; readonly nodes: readonly NodeId[] }
  /** Everything before `cursor` is durable; `copied`, `zeroed`: bytes so far; `stagings`: where what was staged lies, by node. */
  | {
      readonly type: 'PROGRESS';
      readonly cursor: Cursor;
      readonly copied: number;
      readonly zeroed: number;
      readonly stagings: Readonly<Record<NodeId, StagingToken>>;
    }
  /** This backing reference is about to be switched. */
  | {
      readonly type: 'SWITCH';
      readonly overlay: NodeId;
      readonly from: BackingReference | null;
      readonly to: BackingReference | null;
    }
  /** What was staged on this image is about to be published. */
  | { readonly type: 'PUBLISH'; readonly node: NodeId }
  /** From here on the disk is `to`: it shows all that `from`, the active layer until now, did. */
  | { readonly type: 'PIVOT'; readonly from: NodeId; readonly to: NodeId }
  /** A flush failed: what reads back may not be on the disk until `owner`'s machine has forgotten it. */
  | { readonly type: 'FAILED'; readonly owner: JournalOwner; readonly image: string }
  /** The user gave the job up; what is left is to clean up. */
  | { readonly type: 'ABORT' }
  /** Another process goes on with the job. */
  | { readonly type: 'RESUMED'; readonly owner: JournalOwner }
  /** All is done but deleting these files. */
  | { readonly type: 'DONE'; readonly deletes: readonly NodeId[] };

type Intent = Extract<JournalRecord, { type: 'INTENT' }>;

/** What lies behind the name of the image whose commit a journal is. */
export const JOURNAL_SUFFIX = '.downfold';
/** No journal comes near it; what is longer is not read into memory. */
const MOST_BYTES = 1 << 30;

/** The leaf of a plan's chain: the image that the user named, and that the journal lies beside. */
export function leafOf(plan: CommitPlan): string {
  return (plan.images[plan.chainLength - 1] as LayerFacts).path;
}

/** Who worked on a job last. */
export function lastOwner({ intent, records }: Pick<Journal, 'intent' | 'records'>): JournalOwner {
  let { owner } = intent;
  for (const record of records) if (record.type === 'RESUMED') owner = record.owner;
  return owner;
}

/** The pivot that a journal tells of; null: there was none. */
export function pivotIn({
  records,
}: Pick<Journal, 'records'>): Extract<JournalRecord, { type: 'PIVOT' }> | null {
  return records.find((record) => record.type === 'PIVOT') ?? null;
}

/** Path of the journal beside an image. */
export function journalPath(image: string): string {
  return pathBeside(image, JOURNAL_SUFFIX);
}

/**
 * A journal: text lines `CRC-32 (8 hex digits), sequence number, JSON`, appended only. A torn last line is as if it had not been
 * written. Source: facts on crash safety, 2.8.
 */
export interface Journal extends AsyncDisposable {
  readonly path: string;
  readonly records: readonly JournalRecord[];
  readonly intent: Intent;
  /** Appends a record; durable when it resolves. */
  append(record: JournalRecord): Promise<void>;
  /** What was found of another process, which may have been killed before it was durable, is when this resolves. */
  settle(): Promise<void>;
  /** After a failed flush of the journal itself: writes a record in the place of what was not flushed, for whoever looks before the system forgets. */
  noteAnew(record: JournalRecord): Promise<void>;
  /** After a failed `append`: that record is durably not there when it resolves, whatever became of it. */
  takeBack(): Promise<void>;
  /** Takes the journal away, durably. */
  remove(): Promise<void>;
  /** It was taken away, durably or not: nobody goes on with it. */
  readonly removed: boolean;
}

/**
 * The images of the job must be open, so that no other process is creating the same journal: what a crash left of one that never began
 * makes room. @throws StorageError `STORAGE_EXISTS` when there is one already; CommitError as `readJournal`
 */
export async function createJournal(
  backend: StorageBackend,
  path: string,
  intent: Intent,
): Promise<Journal> {
  if (isUrl(path))
    throw new CommitError(
      'COMMIT_UNSUPPORTED',
      `${path}: a job's journal lies beside the leaf, which is behind a server; put an overlay on top that is a file here`,
      { journal: path },
    );
  await makeRoom(backend, path);
  const storage = await backend.create(path, { secret: true });
  const journal = new OpenJournal(backend, path, storage, [], 0, intent);
  try {
    await journal.append(intent);
    await backend.flushDirectory(posix.dirname(path), 'journal: its name before the first change');
    return journal;
  } catch (cause) {
    await storage[Symbol.asyncDispose]();
    // nothing has begun: nobody is to go on with it, least of all where what is read may not be on the disk
    await backend.remove(path).catch((second: unknown) => {
      throw new SuppressedError(second, cause);
    });
    throw cause;
  }
}

async function makeRoom(backend: StorageBackend, path: string): Promise<void> {
  {
    await using storage = await openIfThere(backend, path, 'read');
    if (storage === null || (await recordsIn(path, storage)).records.length > 0) return;
  }
  // nothing had begun, so it does not matter whether a crash brings it back
  await backend.remove(path);
}

/**
 * Reads a journal without changing anything. Null: there is none, or none that says what it is for (a crash while it was
 * created: nothing has happened).
 * @throws CommitError `COMMIT_JOURNAL_BAD` when it is not a journal of ours or was edited
 */
export async function readJournal(
  backend: StorageBackend,
  path: string,
): Promise<Pick<Journal, 'intent' | 'records'> | null> {
  await using storage = await openIfThere(backend, path, 'read');
  if (storage === null) return null;
  const { records } = await recordsIn(path, storage);
  const [intent] = records;
  return intent?.type === 'INTENT' ? { intent, records } : null;
}

/**
 * Opens a journal to go on with it, once it is settled. Null as in `readJournal`; what there is stays, for its owner may be about to write it.
 * @throws as `readJournal`
 */
export async function openJournal(backend: StorageBackend, path: string): Promise<Journal | null> {
  const storage = await openIfThere(backend, path, 'write');
  if (storage === null) return null;
  try {
    const { records, end } = await recordsIn(path, storage);
    const [intent] = records;
    if (intent?.type === 'INTENT')
      return new OpenJournal(backend, path, storage, records, end, intent);
    await storage[Symbol.asyncDispose]();
    return null;
  } catch (cause) {
    await storage[Symbol.asyncDispose]();
    throw cause;
  }
}

async function openIfThere(
  backend: StorageBackend,
  path: string,
  mode: OpenMode,
): Promise<Storage | null> {
  // a server may have something under every name
  if (isUrl(path)) return null;
  try {
    return await backend.open(path, mode);
  } catch (cause) {
    if (cause instanceof StorageError && cause.code === 'STORAGE_NOT_FOUND') return null;
    throw cause;
  }
}

async function recordsIn(
  path: string,
  storage: Storage,
): Promise<{ records: JournalRecord[]; end: number }> {
  const length = await storage.length();
  if (length > MOST_BYTES) throw foreign(path);
  const bytes = new Uint8Array(length);
  await storage.read(hostOffset(0), bytes);
  return parseJournal(path, bytes);
}

function bad(journal: string, problem: string): CommitError {
  return new CommitError('COMMIT_JOURNAL_BAD', `${journal}: ${problem}`, { journal });
}

function foreign(path: string): CommitError {
  return bad(
    path,
    'is not a journal of Downfold, or is damaged from its first record on; it is not touched: move it away if nobody needs it',
  );
}

/** The whole records of a journal, and where the first incomplete one starts. */
export function parseJournal(
  path: string,
  bytes: Uint8Array,
): { records: JournalRecord[]; end: number } {
  const records: JournalRecord[] = [];
  let end = 0;
  let torn = false;
  for (let at = 0; at < bytes.length; ) {
    const newline = bytes.indexOf(0x0a, at);
    const line = bytes.subarray(at, newline < 0 ? bytes.length : newline);
    const found = newline < 0 ? null : parseLine(line);
    if (found === null) torn = true;
    else if (torn || found.sequence !== records.length)
      throw bad(path, 'a record was changed or taken out: it was edited; it is not touched');
    else {
      records.push(found.record);
      end = newline + 1;
    }
    at = newline < 0 ? bytes.length : newline + 1;
  }
  const [first] = records;
  if (first === undefined && !isTornIntent(bytes)) throw foreign(path);
  if (first !== undefined && (first.type !== 'INTENT' || first.format !== 1))
    throw bad(path, 'has a format that this version does not know; it is not touched');
  return { records, end };
}

/** A line as it was written; null: a bad one. */
function parseLine(line: Uint8Array): { sequence: number; record: JournalRecord } | null {
  const text = new TextDecoder().decode(line);
  if (text.slice(0, 9) !== `${checksum(text.slice(9))} `) return null;
  const space = text.indexOf(' ', 9);
  try {
    const record = JSON.parse(text.slice(space + 1)) as JournalRecord | null;
    return record === null ? null : { sequence: Number(text.slice(9, space)), record };
  } catch (cause) {
    if (cause instanceof SyntaxError) return null;
    throw cause;
  }
}

function checksum(text: string): string {
  return crc32(text).toString(16).padStart(8, '0');
}

class OpenJournal implements Journal {
  readonly path: string;
  readonly records: JournalRecord[];
  readonly intent: Intent;
  readonly #backend: StorageBackend;
  readonly #storage: Storage;
  #end: number;
  removed = false;

  constructor(
    backend: StorageBackend,
    path: string,
    storage: Storage,
    records: JournalRecord[],
    end: number,
    intent: Intent,
  ) {
    this.path = path;
    this.records = records;
    this.intent = intent;
    this.#backend = backend;
    this.#storage = storage;
    this.#end = end;
  }

  async append(record: JournalRecord): Promise<void> {
    const bytes = await this.#write(record, this.#storage);
    await this.#storage.flush(`journal: ${record.type}`);
    this.#end += bytes;
    this.records.push(record);
  }

  async settle(): Promise<void> {
    await this.#storage.flush('journal: what was found');
    await this.#backend.flushDirectory(
      posix.dirname(this.path),
      'journal: its name, as it was found',
    );
  }

  async noteAnew(record: JournalRecord): Promise<void> {
    // this file is spoilt; another open one is not
    await using storage = await this.#backend.open(this.path, 'write');
    await this.#write(record, storage);
  }

  async takeBack(): Promise<void> {
    // this file is spoilt when a flush failed; another open one is not
    await using storage = await this.#backend.open(this.path, 'write');
    await this.#cut(storage);
    await storage.flush('journal: a record taken back');
  }

  /** Writes a record behind the last good one. Resolves with its length in bytes. */
  async #write(record: JournalRecord, storage: Storage): Promise<number> {
    const text = `${this.records.length} ${JSON.stringify(record)}`;
    const bytes = new TextEncoder().encode(`${checksum(text)} ${text}\n`);
    await this.#cut(storage);
    await storage.write(hostOffset(this.#end), bytes, { what: `journal ${record.type}` });
    return bytes.length;
  }

  /** What a torn append left behind must not follow the next record. */
  async #cut(storage: Storage): Promise<void> {
    if ((await storage.length()) > this.#end) await storage.setLength(byteLength(this.#end));
  }

  async remove(): Promise<void> {
    await this[Symbol.asyncDispose]();
    try {
      await this.#backend.remove(this.path);
    } catch (cause) {
      // the answer may be lost and the name gone all the same: then it need not be removed again
      const left = await openIfThere(this.#backend, this.path, 'read');
      if (left === null) return this.#forgotten();
      await left[Symbol.asyncDispose]();
      throw cause;
    }
    await this.#forgotten();
  }

  async #forgotten(): Promise<void> {
    this.removed = true;
    await this.#backend.flushDirectory(posix.dirname(this.path), 'journal: removed at the end');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#storage[Symbol.asyncDispose]();
  }
}
