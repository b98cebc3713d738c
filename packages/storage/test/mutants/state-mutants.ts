import { LARGEST_OFFSET } from '@downfold/units';
import { eachPiece, withStorages } from '../support.ts';
import type { Mutant } from './mutant.ts';

/** Files that are used when they must not be, and signals that nobody hears. */
export const stateMutants: readonly Mutant[] = [
  {
    name: 'closing closes nothing',
    killedBy: 'closed/refuses-everything',
    backend: (backend) => withStorages(backend, () => ({ [Symbol.asyncDispose]: async () => {} })),
  },
  {
    name: 'closing does not wait, and a read under way meets another file',
    killedBy: 'closed/waits-for-what-is-under-way',
    backend: (backend) =>
      withStorages(backend, (storage) => {
        let closed = false;
        return {
          read: async (offset, target, options) => {
            await new Promise((resolve) => setImmediate(resolve));
            if (closed) target.fill(0);
            else await storage.read(offset, target, options);
          },
          [Symbol.asyncDispose]: async () => {
            closed = true;
          },
        };
      }),
  },
  {
    name: 'ranges are not checked',
    killedBy: 'range/refuses-what-cannot-be-addressed',
    backend: (backend) =>
      withStorages(backend, (storage) => ({
        read: async (offset, target) => {
          if (offset >= 0 && offset + target.length < LARGEST_OFFSET)
            await storage.read(offset, target);
        },
      })),
  },
  {
    name: 'a negative length is nothing to do',
    killedBy: 'range/refuses-lengths-that-are-none',
    backend: (backend) =>
      withStorages(backend, (storage) => ({
        writeZeroes: async ({ offset, length }) => {
          if (length > 0) await storage.writeZeroes({ offset, length });
        },
      })),
  },
  {
    name: 'an aborted write is written',
    killedBy: 'abort/before-it-starts',
    backend: (backend) =>
      withStorages(backend, (storage) => ({
        write: async (offset, source, options) => {
          await storage.write(offset, source);
          options?.signal?.throwIfAborted();
        },
      })),
  },
  {
    name: 'a copy hears the signal only before it starts',
    killedBy: 'abort/between-the-pieces-of-a-copy',
    backend: (backend) =>
      withStorages(backend, (storage) => ({
        copyFrom: eachPiece(async (source, from, to, length, options) => {
          options?.signal?.throwIfAborted();
          await storage.copyFrom([{ source, from, to, length }]);
        }),
      })),
  },
];
