import fs from 'node:fs';
import { promisify } from 'node:util';
import { nativeCalls } from './native.ts';
import { type LockCalls, lockCalls } from './ofd-locks.ts';

/** The system calls that move data; tests pass others that fail or stop short. */
export interface Calls {
  /** Bytes read; 0 at the end of the file. May be short. */
  readSync(fd: number, target: Uint8Array, offset: number): number;
  /** Bytes written; may be short. */
  writeSync(fd: number, source: Uint8Array, offset: number): number;
  /** As `readSync`, off the main thread. */
  read(fd: number, target: Uint8Array, offset: number): Promise<number>;
  ftruncate(fd: number, length: number): Promise<void>;
  fdatasync(fd: number): Promise<void>;
  fsync(fd: number): Promise<void>;
  /** Has the system begin to write a file to the disk. Nothing is durable by it. */
  writeOut(fd: number): Promise<void>;
  /** Gives the host space of a range back, which reads as zeros then; null: this system, or Node, cannot. */
  readonly punchHole: ((fd: number, offset: number, length: number) => void) | null;
  /** As `punchHole`, off the main thread. False: it could not, and `punchHole` says why. Null: this system, or Node, cannot. */
  readonly punchOffThread:
    | ((fd: number, offset: number, length: number) => Promise<boolean>)
    | null;
  /** Has a range read as zeros, its host space kept or taken, without writing it; the file keeps its length. Null: this system, or Node, cannot. */
  readonly zeroRange: ((fd: number, offset: number, length: number) => void) | null;
  /** Where, from byte `offset` of a file on, the next data or the next hole begins; null: there is none. Null: this system, or Node, cannot. */
  readonly seek: ((fd: number, offset: number, what: 'data' | 'hole') => number | null) | null;
  /** Has the system begin to read a range from the disk, where it is not in memory already. Null: this system, or Node, cannot. */
  readonly willRead: ((fd: number, offset: number, length: number) => void) | null;
  /**
   * Has `target` share the blocks of a range with `source`, whose bytes it shows from then on; all or nothing. Throws what the
   * system says where the file system cannot do that for this range or these files. Null: this system, or Node, cannot.
   */
  readonly shareBlocks:
    | ((source: number, from: number, target: number, to: number, length: number) => void)
    | null;
  /** Null: this system has none that others would see. */
  readonly locks: LockCalls | null;
  /** Milliseconds, monotonic. */
  now(): number;
  /** `f_type` of the file system that a path lies on. */
  fileSystem(path: string): Promise<number>;
}

const read = promisify(fs.read);
const fdatasync = promisify(fs.fdatasync);

/** Node's own. Reads off the main thread go through the thread pool. */
export const nodeCalls: Calls = {
  readSync: (fd, target, offset) => fs.readSync(fd, target, 0, target.length, offset),
  writeSync: (fd, source, offset) => fs.writeSync(fd, source, 0, source.length, offset),
  read: async (fd, target, offset) => (await read(fd, target, 0, target.length, offset)).bytesRead,
  ftruncate: promisify(fs.ftruncate),
  fdatasync,
  fsync: promisify(fs.fsync),
  // a flush does it too, and says what stands in the way; but it waits, has the file system commit and the disk empty its cache
  writeOut: async (fd) => {
    if ((await nativeCalls()?.startWriting(fd)) !== true) await fdatasync(fd);
  },
  get zeroRange() {
    return nativeCalls()?.zeroRange ?? null;
  },
  get punchHole() {
    return nativeCalls()?.punchHole ?? null;
  },
  get punchOffThread() {
    return nativeCalls()?.punchOffThread ?? null;
  },
  get seek() {
    return nativeCalls()?.seek ?? null;
  },
  get willRead() {
    return nativeCalls()?.willRead ?? null;
  },
  get shareBlocks() {
    return nativeCalls()?.shareBlocks ?? null;
  },
  get locks() {
    return lockCalls();
  },
  now: () => {
    const [seconds, nanoseconds] = process.hrtime();
    return seconds * 1e3 + nanoseconds / 1e6;
  },
  fileSystem: async (path) => fs.statfsSync(path).type,
};

/** Whether a signal interrupted the call before it did anything: it is to be made again. */
export function wasInterrupted(cause: unknown): boolean {
  return (cause as NodeJS.ErrnoException).code === 'EINTR';
}
