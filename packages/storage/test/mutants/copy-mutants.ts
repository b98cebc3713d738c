import { type ByteLength, byteLength, hostOffset } from '@downfold/units';
import {
  type BackendDriver,
  bytesOfPieces,
  type CopyPiece,
  piecesUpTo,
  type StorageDriver,
} from '../../src/index.ts';
import { eachPiece, oneByOne, withFiles, withStorages } from '../support.ts';
import type { Mutant } from './mutant.ts';

/** Copies that go wrong. */
export const copyMutants: readonly Mutant[] = [
  {
    name: 'copyFrom drops the tail',
    killedBy: 'copy/between-files',
    driver: (driver) =>
      withCopies(driver, async (copy, length) => {
        await copy(byteLength(length - (length % 512)));
        return length;
      }),
  },
  {
    name: 'copyFrom does a piece and says it was all',
    killedBy: 'copy/large',
    driver: (driver) =>
      withCopies(driver, async (copy, length) => {
        await copy(byteLength(Math.min(length, 4 << 20)));
        return length;
      }),
  },
  {
    name: 'copyFrom wants to write to its source',
    killedBy: 'copy/from-read-only',
    driver: (driver) =>
      withFiles(driver, (file) => ({
        copyFrom: oneByOne(async (source, from, to, length, what) => {
          if (!source.writable) throw new Error('the source is not writable');
          return await file.copyFrom([{ source, from, to, length }], what);
        }),
      })),
  },
  {
    name: 'files of other backends are refused',
    killedBy: 'copy/from-another-backend',
    driver: (driver) =>
      withFiles(driver, (file) => ({
        copyFrom: oneByOne(async (source, from, to, length, what) => {
          if (source.label === 'pattern') throw new Error('another backend');
          return await file.copyFrom([{ source, from, to, length }], what);
        }),
      })),
  },
  {
    name: 'what lies past the end of the source does not grow the target',
    killedBy: 'copy/past-source-end-grows-the-target',
    driver: (driver) =>
      withFiles(driver, (file) => ({
        copyFrom: oneByOne(async (source, from, to, length, what) => {
          const before = await file.length();
          const copied = await file.copyFrom([{ source, from, to, length }], what);
          const filled = Math.max(0, Math.min(length, (await source.length()) - from));
          await file.setLength(byteLength(Math.max(before, to + filled)));
          return copied;
        }),
      })),
  },
  {
    name: 'copies within a file are none',
    killedBy: 'copy/within-a-file',
    driver: (driver) =>
      withFiles(driver, (file) => ({
        copyFrom: oneByOne(async (source, from, to, length, what) =>
          source.identity.inode === file.identity.inode
            ? length
            : file.copyFrom([{ source, from, to, length }], what),
        ),
      })),
  },
  {
    name: 'a copy of no bytes is a copy of one',
    killedBy: 'copy/no-bytes',
    backend: (backend) =>
      withStorages(backend, (storage) => ({
        copyFrom: eachPiece((source, from, to, length) =>
          storage.copyFrom([{ source, from, to, length: byteLength(length || 1) }]),
        ),
      })),
  },
  {
    name: 'a closed source is read as zeros',
    killedBy: 'copy/from-closed-is-refused',
    backend: (backend) =>
      withStorages(backend, (storage) => ({
        copyFrom: eachPiece(async (source, from, to, length) => {
          const bytes = new Uint8Array(length);
          await source.read(from, bytes).catch(() => {});
          await storage.write(to, bytes);
        }),
      })),
  },
  {
    name: 'all copies share a buffer over their waits',
    killedBy: 'concurrent/copies-both-ways',
    driver: (driver) => {
      const shared = new Uint8Array(1 << 20);
      return withFiles(driver, (file) => ({
        copyFrom: oneByOne(async (source, from, to, length, what) => {
          const piece = shared.subarray(0, length);
          piece.fill(0, await source.read(from, piece));
          await new Promise((resolve) => setImmediate(resolve));
          await file.write(to, piece, what);
          return piece.length;
        }),
      }));
    },
  },
  {
    name: 'copyFrom stops where the source ends',
    killedBy: 'copy/past-source-end-is-zero',
    driver: (driver) =>
      withFiles(driver, (file) => ({
        copyFrom: oneByOne(async (source, from, to, length, what) => {
          const bytes = new Uint8Array(length);
          const filled = await source.read(from, bytes);
          if (filled > 0) await file.write(to, bytes.subarray(0, filled), what);
          return length;
        }),
      })),
  },
  {
    name: 'copyFrom skips zeros',
    killedBy: 'copy/hole-is-zero',
    driver: (driver) =>
      withFiles(driver, (file) => ({
        copyFrom: oneByOne(async (source, from, to, length, what) => {
          const bytes = new Uint8Array(length);
          await source.read(from, bytes);
          if (bytes.some((byte) => byte !== 0)) await file.write(to, bytes, what);
          return length;
        }),
      })),
  },
  {
    name: 'copies onto themselves are let through',
    killedBy: 'copy/onto-itself-is-refused',
    backend: (backend) =>
      withStorages(backend, (storage) => ({
        copyFrom: eachPiece(async (source, from, to, length) => {
          const bytes = new Uint8Array(length);
          await source.read(from, bytes);
          await storage.write(to, bytes);
        }),
      })),
  },
  {
    name: 'of many pieces the first is copied, and counts for all',
    killedBy: 'copy/many-pieces',
    driver: (driver) =>
      withFiles(driver, (file) => ({
        copyFrom: async (pieces, what) => {
          await file.copyFrom(pieces.slice(0, 1), what);
          return bytesOfPieces(pieces);
        },
      })),
  },
  {
    name: 'pieces that follow one another in the target are read from one place',
    killedBy: 'copy/many-pieces',
    driver: (driver) =>
      withFiles(driver, (file) => ({
        copyFrom: (pieces, what) => file.copyFrom(pieces.map(asContinued), what),
      })),
  },
  {
    name: 'what a turn did not come to is forgotten',
    killedBy: 'copy/many-pieces-large',
    driver: (driver) =>
      withFiles(driver, (file) => ({
        copyFrom: async (pieces, what) => {
          await file.copyFrom(piecesUpTo(pieces, 4 << 20), what);
          return bytesOfPieces(pieces);
        },
      })),
  },
  {
    name: 'what comes after a piece of another backend is forgotten',
    killedBy: 'copy/pieces-of-several-backends',
    backend: (backend) =>
      withStorages(backend, (storage) => ({
        copyFrom: async (pieces, options) => {
          const foreign = pieces.findIndex(({ source }) => source.label === 'pattern');
          await storage.copyFrom(foreign < 0 ? pieces : pieces.slice(0, foreign + 1), options);
        },
      })),
  },
];

/** A piece as if its source went on where that of the piece before ended. */
function asContinued(
  piece: CopyPiece<StorageDriver>,
  index: number,
  pieces: readonly CopyPiece<StorageDriver>[],
): CopyPiece<StorageDriver> {
  const before = pieces[index - 1];
  if (before === undefined || before.to + before.length !== piece.to) return piece;
  return { ...piece, source: before.source, from: hostOffset(before.from + before.length) };
}

function withCopies(
  driver: BackendDriver,
  change: (copy: (length: ByteLength) => Promise<number>, length: ByteLength) => Promise<number>,
): BackendDriver {
  return withFiles(driver, (file) => ({
    copyFrom: oneByOne(async (source, from, to, length, what) => {
      const bytes = new Uint8Array(length);
      await source.read(from, bytes);
      return await change(async (part) => {
        if (part > 0) await file.write(to, bytes.subarray(0, part), what);
        return part;
      }, length);
    }),
  }));
}
