import { byteLength, hostOffset } from '@downfold/units';
import { withFiles, withStorages } from '../support.ts';
import type { Mutant } from './mutant.ts';

const cut = (offset: number): number => offset % 2 ** 32;

/** Reads, writes and zeroings that go wrong. */
export const transferMutants: readonly Mutant[] = [
  {
    name: 'reads start where their sector starts',
    killedBy: 'read/what-was-written',
    driver: (driver) =>
      withFiles(driver, (file) => ({
        read: (offset, target) => file.read(hostOffset(offset - (offset % 512)), target),
      })),
  },
  {
    name: 'a read past the end claims to have filled the buffer',
    killedBy: 'read/past-end-is-zero',
    driver: (driver) =>
      withFiles(driver, (file) => ({
        read: async (offset, target) => {
          await file.read(offset, target);
          return target.length;
        },
      })),
  },
  {
    name: 'an empty file is not read',
    killedBy: 'read/empty-file-is-zero',
    backend: (backend) =>
      withStorages(backend, (storage) => ({
        read: async (offset, target) => {
          if ((await storage.length()) > 0) await storage.read(offset, target);
        },
      })),
  },
  {
    name: 'a hole leaves the buffer as it was',
    killedBy: 'read/hole-is-zero',
    driver: (driver) =>
      withFiles(driver, (file) => ({
        read: async (offset, target) => {
          const bytes = new Uint8Array(target.length);
          const filled = await file.read(offset, bytes);
          bytes.subarray(0, filled).forEach((byte, at) => {
            if (byte !== 0) target[at] = byte;
          });
          return filled;
        },
      })),
  },
  {
    name: 'a read writes to the start of the buffer behind its view',
    killedBy: 'read/fills-only-its-view',
    driver: (driver) =>
      withFiles(driver, (file) => ({
        read: (offset, target) =>
          file.read(offset, new Uint8Array(target.buffer, 0, target.length)),
      })),
  },
  {
    name: 'an empty read is an error',
    killedBy: 'read/no-bytes',
    driver: (driver) =>
      withFiles(driver, (file) => ({
        read: async (offset, target) => {
          if (target.length === 0) throw new RangeError('nothing to read');
          return await file.read(offset, target);
        },
      })),
  },
  {
    name: 'each open file reads what it read before',
    killedBy: 'read/through-another-open',
    driver: (driver) =>
      withFiles(driver, (file) => {
        const lengthOnce = file.length();
        return {
          read: async (offset, target) =>
            Math.min(await file.read(offset, target), Math.max(0, (await lengthOnce) - offset)),
        };
      }),
  },
  {
    name: 'a short read is taken for the end of the file',
    killedBy: 'read/large',
    driver: (driver) =>
      withFiles(driver, (file) => ({
        read: (offset, target) => file.read(offset, target.subarray(0, 1 << 20)),
      })),
  },
  {
    name: 'a short write is ignored',
    killedBy: 'write/large',
    driver: (driver) =>
      withFiles(driver, (file) => ({
        write: (offset, source, what) => file.write(offset, source.subarray(0, 1 << 20), what),
      })),
  },
  {
    name: 'a write resolves before it is done',
    killedBy: 'write/source-is-the-callers',
    driver: (driver) =>
      withFiles(driver, (file) => ({
        write: async (offset, source, what) => {
          setImmediate(() => void file.write(offset, source, what));
        },
      })),
  },
  {
    name: 'a write fills whole sectors',
    killedBy: 'write/changes-its-range-only',
    driver: (driver) =>
      withFiles(driver, (file) => ({
        write: async (offset, source, what) => {
          const sectors = new Uint8Array(Math.ceil(source.length / 512) * 512);
          sectors.set(source);
          await file.write(offset, sectors, what);
        },
      })),
  },
  {
    name: 'a write past the end is put at the end',
    killedBy: 'write/grows-the-file',
    driver: (driver) =>
      withFiles(driver, (file) => ({
        write: async (offset, source, what) =>
          file.write(hostOffset(Math.min(offset, await file.length())), source, what),
      })),
  },
  {
    name: 'an empty write grows the file',
    killedBy: 'write/no-bytes',
    backend: (backend) =>
      withStorages(backend, (storage) => ({
        write: async (offset, source) => {
          if (offset > (await storage.length())) await storage.setLength(byteLength(offset));
          await storage.write(offset, source);
        },
      })),
  },
  {
    name: 'offsets are cut to 32 bits',
    killedBy: 'sparse/far-offsets-are-exact',
    driver: (driver) =>
      withFiles(driver, (file) => ({
        read: (offset, target) => file.read(hostOffset(cut(offset)), target),
        write: (offset, source, what) => file.write(hostOffset(cut(offset)), source, what),
      })),
  },
  {
    name: 'writeZeroes does not grow the file',
    killedBy: 'write-zeroes/grows-the-file',
    driver: (driver) =>
      withFiles(driver, (file) => ({
        writeZeroes: async (range, what) => {
          const end = Math.min(await file.length(), range.offset + range.length);
          const length = byteLength(Math.max(0, end - range.offset));
          await file.writeZeroes({ ...range, length }, what);
        },
      })),
  },
  {
    name: 'writeZeroes clears whole pages',
    killedBy: 'write-zeroes/changes-its-range-only',
    driver: (driver) =>
      withFiles(driver, (file) => ({
        writeZeroes: async ({ offset, length }, what) => {
          await file.writeZeroes({ offset, length }, what);
          const page = hostOffset(offset - (offset % 4096));
          await file.writeZeroes({ offset: page, length: byteLength(offset - page) }, what);
        },
      })),
  },
  {
    name: 'zeros stop after a piece',
    killedBy: 'write-zeroes/large',
    driver: (driver) =>
      withFiles(driver, (file) => ({
        writeZeroes: ({ offset, length }, what) =>
          file.writeZeroes({ offset, length: byteLength(Math.min(length, 1 << 20)) }, what),
      })),
  },
  {
    name: 'no zeros are one zero',
    killedBy: 'write-zeroes/no-bytes',
    backend: (backend) =>
      withStorages(backend, (storage) => ({
        writeZeroes: ({ offset, length }) =>
          storage.writeZeroes({ offset, length: byteLength(length || 1) }),
      })),
  },
  {
    name: 'zeros past the end start at its page',
    killedBy: 'sparse/zeros-past-the-end-are-a-hole',
    driver: (driver) =>
      withFiles(driver, (file) => ({
        writeZeroes: async ({ offset, length }, what) => {
          const start = Math.max(offset, Math.min(offset + length, await file.length()));
          await file.writeZeroes(
            { offset: hostOffset(start), length: byteLength(offset + length - start) },
            what,
          );
        },
      })),
  },
  {
    name: 'far zeros go to the wrong place',
    killedBy: 'sparse/far-copies-and-zeros',
    driver: (driver) =>
      withFiles(driver, (file) => ({
        writeZeroes: ({ offset, length }, what) =>
          file.writeZeroes({ offset: hostOffset(cut(offset)), length }, what),
      })),
  },
  {
    name: 'reads share a buffer over their waits',
    killedBy: 'concurrent/reads-beside-writes',
    driver: (driver) =>
      withFiles(driver, (file) => {
        const shared = new Uint8Array(1 << 20);
        return {
          read: async (offset, target) => {
            const filled = await file.read(offset, shared.subarray(0, target.length));
            await new Promise((resolve) => setImmediate(resolve));
            target.set(shared.subarray(0, filled));
            return filled;
          },
        };
      }),
  },
  {
    name: 'what was written goes with the file that is closed',
    killedBy: 'open/for-writing',
    driver: (driver) =>
      withFiles(driver, (file) => {
        const before = file.length();
        return {
          [Symbol.asyncDispose]: async () => {
            if (file.writable && (await before) > 0)
              await file.writeZeroes({ offset: hostOffset(0), length: await before }, 'lost');
          },
        };
      }),
  },
  {
    name: 'one place in the file is written wrongly',
    killedBy: 'random/agrees-with-a-flat-model',
    driver: (driver) =>
      withFiles(driver, (file) => ({
        write: async (offset, source, what) => {
          const bytes = source.slice();
          const at = 130_000 - offset;
          if (at >= 0 && at < bytes.length) bytes[at] = 1 + (bytes[at] ?? 0);
          await file.write(offset, bytes, what);
        },
      })),
  },
  {
    name: 'growing by zeros cuts off what was written further on meanwhile',
    killedBy: 'concurrent/changes-beside-each-other',
    driver: (driver) =>
      withFiles(driver, (file) => ({
        writeZeroes: async ({ offset, length }, what) => {
          const end = byteLength(offset + length);
          const before = await file.length();
          if (end > before) await file.setLength(end);
          else await file.writeZeroes({ offset, length }, what);
        },
      })),
  },
];
