import assert from 'node:assert/strict';
import { assertSameBytes, type CaseContext } from '@downfold/compliance';
import { hostOffset } from '@downfold/units';
import type { Storage } from '../storage.ts';
import {
  assertRefused,
  contentOf,
  copy,
  createFile,
  MAKES_FILES,
  pathOf,
  rangeAt,
  readAt,
  type StorageCase,
  type StorageSubject,
  setLength,
} from './subject.ts';

const OPERATIONS = 400;
const NAMES = ['a', 'b', 'c'] as const;
/** Offsets and lengths are drawn near the multiples of these, where implementations have seams. */
const SEAMS = [1, 512, 4096, 65_536] as const;
const LARGEST = 200_000;

/** A file and, as the model, the bytes it must hold. */
interface ModelFile {
  storage: Storage;
  bytes: Uint8Array;
}

/** Files under random operations, each also done on a flat array. */
class Play {
  readonly #subject: StorageSubject;
  readonly #context: CaseContext;
  readonly #files = new Map<string, ModelFile>();

  constructor(subject: StorageSubject, context: CaseContext) {
    this.#subject = subject;
    this.#context = context;
  }

  /** Does one operation and says what it was. */
  async step(): Promise<string> {
    const { integer } = this.#context;
    const name = NAMES[integer(NAMES.length)] as string;
    const file = this.#files.get(name);
    if (file === undefined) return await this.#create(name);
    const kinds = [
      () => this.#write(file),
      () => this.#write(file),
      () => this.#writeZeroes(file),
      () => this.#copy(file),
      () => this.#copy(file),
      () => this.#setLength(file),
      () => this.#discard(file),
      () => this.#read(file),
      () => this.#reopen(name, file),
      () => this.#rename(name, file),
    ];
    const kind = kinds[integer(kinds.length)] as () => Promise<string>;
    return `${name}: ${await kind()}`;
  }

  /** Compares every file with its model. */
  async check(): Promise<void> {
    for (const [name, { storage, bytes }] of this.#files)
      assertSameBytes(await contentOf(storage), bytes, name);
    const names = (await this.#subject.backend.list(this.#subject.directory)).map((e) => e.name);
    assert.deepEqual(names.toSorted(), [...this.#files.keys()].toSorted(), 'names');
  }

  async close(): Promise<void> {
    for (const { storage } of this.#files.values()) await storage[Symbol.asyncDispose]();
  }

  async #create(name: string): Promise<string> {
    this.#files.set(name, {
      storage: await createFile(this.#subject, name),
      bytes: new Uint8Array(0),
    });
    return `${name}: create`;
  }

  async #write(file: ModelFile): Promise<string> {
    const { offset, length } = this.#range();
    const bytes = this.#context.bytes(length);
    await file.storage.write(hostOffset(offset), bytes);
    if (length > 0) grow(file, offset + length).set(bytes, offset);
    return `write ${length} at ${offset}`;
  }

  async #writeZeroes(file: ModelFile): Promise<string> {
    const { offset, length } = this.#range();
    await file.storage.writeZeroes(rangeAt(offset, length));
    if (length > 0) grow(file, offset + length).fill(0, offset, offset + length);
    return `writeZeroes ${length} at ${offset}`;
  }

  async #copy(file: ModelFile): Promise<string> {
    const others = [...this.#files.entries()];
    const [name, source] = others[this.#context.integer(others.length)] as [string, ModelFile];
    const { offset: from, length } = this.#range();
    const { offset: to } = this.#range();
    const what = `copy ${length} from ${name} at ${from} to ${to}`;
    const work = (): Promise<void> => copy(file.storage, source.storage, from, to, length);
    if (source === file && Math.abs(from - to) < length) {
      await assertRefused('STORAGE_RANGE', what, work);
      return `${what}, refused`;
    }
    await work();
    if (length > 0) {
      const piece = new Uint8Array(length);
      piece.set(source.bytes.subarray(from, from + length));
      grow(file, to + length).set(piece, to);
    }
    return what;
  }

  async #setLength(file: ModelFile): Promise<string> {
    const { offset: length } = this.#range();
    if (!file.storage.supports.resize) return 'setLength, absent';
    await setLength(file.storage, length);
    const bytes = new Uint8Array(length);
    bytes.set(file.bytes.subarray(0, length));
    file.bytes = bytes;
    return `setLength ${length}`;
  }

  async #discard(file: ModelFile): Promise<string> {
    const { offset, length } = this.#range();
    if (!file.storage.supports.discard) return 'discard, absent';
    await file.storage.discard(rangeAt(offset, length));
    file.bytes.fill(0, offset, offset + length);
    return `discard ${length} at ${offset}`;
  }

  async #read(file: ModelFile): Promise<string> {
    const { offset, length } = this.#range();
    const expected = new Uint8Array(length);
    expected.set(file.bytes.subarray(offset, offset + length));
    const what = `read ${length} at ${offset}`;
    assertSameBytes(await readAt(file.storage, offset, length), expected, what);
    return what;
  }

  async #reopen(name: string, file: ModelFile): Promise<string> {
    await file.storage.flush('kit: before it is closed');
    await file.storage[Symbol.asyncDispose]();
    file.storage = await this.#subject.backend.open(pathOf(this.#subject, name), 'write');
    return 'flush and open again';
  }

  async #rename(name: string, file: ModelFile): Promise<string> {
    const to = NAMES[this.#context.integer(NAMES.length)] as string;
    if (to === name) return await this.#remove(name, file);
    await this.#subject.backend.rename(pathOf(this.#subject, name), pathOf(this.#subject, to));
    await this.#files.get(to)?.storage[Symbol.asyncDispose]();
    this.#files.delete(name);
    this.#files.set(to, file);
    return `rename to ${to}`;
  }

  async #remove(name: string, file: ModelFile): Promise<string> {
    await this.#subject.backend.remove(pathOf(this.#subject, name));
    await file.storage[Symbol.asyncDispose]();
    this.#files.delete(name);
    return 'remove';
  }

  #range(): { offset: number; length: number } {
    return { offset: this.#nearSeam(LARGEST), length: this.#nearSeam(LARGEST / 4) };
  }

  #nearSeam(below: number): number {
    const { integer } = this.#context;
    const seam = SEAMS[integer(SEAMS.length)] as number;
    const near = integer(Math.ceil(below / seam)) * seam + integer(3) - 1;
    return Math.max(0, Math.min(below, near));
  }
}

/** The model's bytes, at least `length` long. */
function grow(file: ModelFile, length: number): Uint8Array {
  if (length > file.bytes.length) {
    const bytes = new Uint8Array(length);
    bytes.set(file.bytes);
    file.bytes = bytes;
  }
  return file.bytes;
}

export const randomCases: readonly StorageCase[] = [
  {
    id: 'random/agrees-with-a-flat-model',
    because: 'what no case thought of: operations one after another, against plain arrays',
    needs: MAKES_FILES,
    run: async (subject, context) => {
      const play = new Play(subject, context);
      const done: string[] = [];
      try {
        for (let step = 0; step < OPERATIONS; step++) {
          done.push(await play.step());
          if (step % 20 === 19) await play.check();
        }
        await play.check();
      } catch (cause) {
        throw new Error(
          `after ${done.length} operations: ${(cause as Error).message}; the last: ${done.slice(-5).join('; ')}`,
          { cause },
        );
      } finally {
        await play.close();
      }
    },
  },
];
