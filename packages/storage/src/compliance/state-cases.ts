import assert from 'node:assert/strict';
import { assertSameBytes } from '@downfold/compliance';
import { hostOffset, LARGEST_OFFSET } from '@downfold/units';
import type { Storage } from '../storage.ts';
import {
  assertRefused,
  contentOf,
  copy,
  createFile,
  createWith,
  MAKES_FILES,
  openWith,
  pathOf,
  rangeAt,
  readAt,
  type StorageCase,
} from './subject.ts';

/** Every operation that changes a file, tried on its first bytes. */
function changesOf(file: Storage, source: Storage): Record<string, () => Promise<unknown>> {
  return {
    write: () => file.write(hostOffset(0), new Uint8Array(10)),
    writeZeroes: () => file.writeZeroes(rangeAt(0, 10)),
    copyFrom: () => copy(file, source, 0, 0, 10),
    discard: () => file.discard(rangeAt(0, 10)),
    setLength: () => file.setLength(0 as never),
    flush: () => file.flush('kit: refused'),
  };
}

const states: readonly StorageCase[] = [
  {
    id: 'read-only/refuses-every-change',
    because: 'layers that a commit only reads are opened for reading, and stay as they are',
    run: async (subject, context) => {
      const bytes = context.bytes(5000);
      await using source = await openWith(subject, context.bytes(10), 'source');
      await using file = await openWith(subject, bytes);
      assert.equal(file.writable, false, 'writable');
      for (const [name, change] of Object.entries(changesOf(file, source)))
        await assertRefused('STORAGE_READ_ONLY', name, change);
      assertSameBytes(await contentOf(file), bytes, 'the file');
    },
  },
  {
    id: 'open/for-writing',
    because: 'a resumed commit goes on in files that exist',
    needs: ['write'],
    run: async (subject, context) => {
      const bytes = context.bytes(5000);
      await (await createWith(subject, bytes))[Symbol.asyncDispose]();
      const later = context.bytes(100);
      {
        await using file = await subject.backend.open(pathOf(subject, 'file'), 'write');
        assert.equal(file.writable, true, 'writable');
        await file.write(hostOffset(1000), later);
      }
      bytes.set(later, 1000);
      await using again = await subject.backend.open(pathOf(subject, 'file'), 'read');
      assertSameBytes(await contentOf(again), bytes, 'the file');
    },
  },
  {
    id: 'closed/refuses-everything',
    because: 'a descriptor that was given back may already belong to another file',
    run: async (subject, context) => {
      const file = await openWith(subject, context.bytes(5000));
      await using source = await openWith(subject, context.bytes(10), 'source');
      await file[Symbol.asyncDispose]();
      const operations = {
        ...changesOf(file, source),
        length: () => file.length(),
        read: () => readAt(file, 0, 10),
        runAt: () => file.runAt(hostOffset(0)),
      };
      for (const [name, operation] of Object.entries(operations))
        await assertRefused('STORAGE_CLOSED', name, operation);
      await file[Symbol.asyncDispose]();
    },
  },
  {
    id: 'closed/waits-for-what-is-under-way',
    because: 'a queued system call must not meet a descriptor that now belongs to another file',
    run: async (subject, context) => {
      const bytes = context.bytes(1 << 20);
      const file = await openWith(subject, bytes);
      const targets = Array.from({ length: 8 }, () => new Uint8Array(1 << 20));
      const reads = targets.map((target) => file.read(hostOffset(0), target));
      await file[Symbol.asyncDispose]();
      await using other = await openWith(subject, new Uint8Array(1 << 20), 'other');
      await Promise.all(reads);
      for (const target of targets) assertSameBytes(target, bytes, 'a read under way at the close');
      assert.equal(await other.length(), 1 << 20, 'length of the other file');
    },
  },
];

const ranges: readonly StorageCase[] = [
  {
    id: 'range/refuses-what-cannot-be-addressed',
    because: 'offsets come from untrusted images; beyond 2^53-1 they would be rounded',
    needs: ['write'],
    run: async (subject, context) => {
      const bytes = context.bytes(1000);
      await using source = await createWith(subject, context.bytes(10), 'source');
      await using file = await createWith(subject, bytes);
      for (const offset of [-1, 0.5, Number.NaN, LARGEST_OFFSET - 5, LARGEST_OFFSET + 1]) {
        const range = { offset, length: 10 } as never;
        const operations = {
          read: () => file.read(offset as never, new Uint8Array(10)),
          write: () => file.write(offset as never, new Uint8Array(10)),
          writeZeroes: () => file.writeZeroes(range),
          'copyFrom, source': () =>
            file.copyFrom([{ source, from: offset as never, to: 0 as never, length: 10 as never }]),
          'copyFrom, target': () =>
            file.copyFrom([{ source, from: 0 as never, to: offset as never, length: 10 as never }]),
          ...(file.supports.discard ? { discard: () => file.discard(range) } : {}),
        };
        for (const [name, operation] of Object.entries(operations))
          await assertRefused('STORAGE_RANGE', `${name} at ${offset}`, operation);
      }
      assertSameBytes(await contentOf(file), bytes, 'the file');
    },
  },
  {
    id: 'range/refuses-lengths-that-are-none',
    because: 'a negative length is a subtraction gone wrong',
    needs: ['write'],
    run: async (subject, context) => {
      const bytes = context.bytes(1000);
      await using source = await createWith(subject, context.bytes(10), 'source');
      await using file = await createWith(subject, bytes);
      for (const length of [-1, 0.5, Number.NaN, LARGEST_OFFSET + 1]) {
        const range = { offset: 500, length } as never;
        const operations = {
          writeZeroes: () => file.writeZeroes(range),
          copyFrom: () =>
            file.copyFrom([{ source, from: 0 as never, to: 0 as never, length: length as never }]),
          ...(file.supports.discard ? { discard: () => file.discard(range) } : {}),
          ...(file.supports.resize ? { setLength: () => file.setLength(length as never) } : {}),
        };
        for (const [name, operation] of Object.entries(operations))
          await assertRefused('STORAGE_RANGE', `${name} of ${length} bytes`, operation);
      }
      assertSameBytes(await contentOf(file), bytes, 'the file');
    },
  },
];

const aborts: readonly StorageCase[] = [
  {
    id: 'abort/before-it-starts',
    because: 'a job that was cancelled touches nothing any more',
    needs: ['write'],
    run: async (subject, context) => {
      const bytes = context.bytes(1000);
      await using source = await createWith(subject, context.bytes(10), 'source');
      await using file = await createWith(subject, bytes);
      const reason = new Error('the reason');
      const options = { signal: AbortSignal.abort(reason) };
      const target = new Uint8Array(10).fill(0xee);
      const range = rangeAt(0, 10);
      const operations = {
        read: () => file.read(hostOffset(0), target, options),
        write: () => file.write(hostOffset(0), new Uint8Array(10), options),
        writeZeroes: () => file.writeZeroes(range, options),
        copyFrom: () =>
          file.copyFrom(
            [{ source, from: hostOffset(0), to: hostOffset(0), length: range.length }],
            options,
          ),
        ...(file.supports.discard ? { discard: () => file.discard(range, options) } : {}),
        ...(file.supports.resize ? { setLength: () => file.setLength(0 as never, options) } : {}),
      };
      for (const [name, operation] of Object.entries(operations))
        await assert.rejects(operation, (cause) => cause === reason, name);
      assertSameBytes(target, new Uint8Array(10).fill(0xee), 'the buffer of the read');
      assertSameBytes(await contentOf(file), bytes, 'the file');
    },
  },
  {
    id: 'abort/between-the-pieces-of-a-copy',
    because: 'a cancelled job does not wait for an extent of gigabytes; what was copied is whole',
    needs: MAKES_FILES,
    run: async (subject, context) => {
      const length = 16 << 20;
      const bytes = context.bytes(4096);
      await using source = await createFile(subject, 'source');
      for (let at = 0; at < length; at += 1 << 20) await source.write(hostOffset(at), bytes);
      await using file = await createFile(subject);
      const controller = new AbortController();
      const reason = new Error('the reason');
      let reads = 0;
      const watched = withRead(source, async (offset, target) => {
        reads += 1;
        if (reads === 2) controller.abort(reason);
        await source.read(offset, target);
      });
      const options = { signal: controller.signal };
      const range = rangeAt(0, length);
      await assert.rejects(
        file.copyFrom(
          [{ source: watched, from: range.offset, to: range.offset, length: range.length }],
          options,
        ),
        (cause) => cause === reason,
      );
      assert.equal(reads, 2, 'reads of the source');
      const copied = await contentOf(file);
      assertSameBytes(copied, await readAt(source, 0, copied.length), 'what was copied');
    },
  },
];

/** A foreign storage: nobody's driver can recognise it, so that copies must read it. */
function withRead(storage: Storage, read: Storage['read']): Storage {
  return {
    label: 'watched',
    writable: false,
    supports: { discard: false, resize: false },
    identity: { device: '0', inode: '0' },
    descriptor: null,
    length: () => storage.length(),
    read,
    runAt: (offset) => storage.runAt(offset),
    write: (offset, source) => storage.write(offset, source),
    writeZeroes: (range) => storage.writeZeroes(range),
    copyFrom: (pieces) => storage.copyFrom(pieces),
    discard: (range) => storage.discard(range),
    setLength: (length) => storage.setLength(length),
    flush: (barrier) => storage.flush(barrier),
    [Symbol.asyncDispose]: async () => {},
  };
}

export const stateCases: readonly StorageCase[] = [...states, ...ranges, ...aborts];
