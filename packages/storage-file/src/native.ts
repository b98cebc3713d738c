import { constants } from 'node:os';
import { certain, findKoffi, type Koffi, type KoffiFunction, loadKoffi } from '@downfold/native';

/** fallocate(2): the file keeps its length, and the range becomes a hole that reads as zeros. */
const FALLOC_FL_KEEP_SIZE = 1;
const FALLOC_FL_PUNCH_HOLE = 2;
/** The range reads as zeros; its blocks are there, unwritten. */
const FALLOC_FL_ZERO_RANGE = 16;

/** sync_file_range(2): starts to write what is dirty and not being written yet; waits for nothing, and promises nothing. */
const SYNC_FILE_RANGE_WRITE = 2;

/** posix_fadvise(2): these bytes will be read soon. */
const POSIX_FADV_WILLNEED = 3;

/** lseek(2): the next data, the next hole. It moves the position of the open file, which nobody uses: all reads and writes name theirs. */
const SEEK = { data: 3, hole: 4 } as const;

/** ioctl_ficlonerange(2): two files share the blocks of a range until one of them changes it. */
const FICLONERANGE = 0x4020940d;

/**
 * System calls that Node lacks, through koffi. Null where it is not installed, on systems that are not Linux, and with
 * `DOWNFOLD_NATIVE=0`: everything works without them, but host space is not given back, locks cost a process each, copies are
 * slower, never share blocks, and take holes for data.
 */
export interface NativeCalls {
  /** @throws an error with `code`, as Node's calls do */
  punchHole(fd: number, offset: number, length: number): void;
  /** As `Calls.punchOffThread`. */
  punchOffThread(fd: number, offset: number, length: number): Promise<boolean>;
  /** As `Calls.zeroRange`. */
  zeroRange(fd: number, offset: number, length: number): void;
  /** Has the system start to write all of a file to the disk. False: it did not. */
  startWriting(fd: number): Promise<boolean>;
  /** As `Calls.seek`. */
  seek(fd: number, offset: number, what: 'data' | 'hole'): number | null;
  /** As `Calls.willRead`. */
  willRead(fd: number, offset: number, length: number): void;
  /** As `Calls.shareBlocks`. */
  shareBlocks(source: number, from: number, target: number, to: number, length: number): void;
  /** As `LockCalls.acquire`. */
  acquireLocks(fd: number, hold: readonly number[], free: readonly number[]): number | null;
  /** As `LockCalls.release`. */
  releaseLocks(fd: number, bytes: readonly number[]): void;
}

let loaded: NativeCalls | null | undefined;

/** The native calls, looked for once. */
export function nativeCalls(): NativeCalls | null {
  if (loaded !== undefined) return loaded;
  const path = findKoffi();
  loaded = path === null ? null : callsThrough(() => loadKoffi(path));
  return loaded;
}

/** @param load takes some milliseconds: called when there is something to call */
export function callsThrough(load: () => Koffi): NativeCalls {
  let loadedFunctions: Functions | undefined;
  const functions = (): Functions => (loadedFunctions ??= functionsOf(load()));
  const allocate = (fd: number, mode: number, offset: number, length: number): void => {
    const { fallocate, errno } = functions();
    const flags = mode | FALLOC_FL_KEEP_SIZE;
    succeed(
      'fallocate',
      certain(() => fallocate(fd, flags, offset, length), errno),
    );
  };
  const lock = (fd: number, command: number, flock: Buffer): number => {
    const { fcntl, errno } = functions();
    return certain(() => fcntl(fd, command, 'void *', flock), errno);
  };
  return {
    punchHole: (fd, offset, length) => allocate(fd, FALLOC_FL_PUNCH_HOLE, offset, length),
    punchOffThread: (fd, offset, length) => {
      const mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
      return offThread(functions().fallocate, fd, mode, offset, length);
    },
    zeroRange: (fd, offset, length) => allocate(fd, FALLOC_FL_ZERO_RANGE, offset, length),
    // length 0: to the end
    startWriting: (fd) => offThread(functions().syncFileRange, fd, 0, 0, SYNC_FILE_RANGE_WRITE),
    seek: (fd, offset, what) => {
      const { lseek, errno } = functions();
      const found = certain(() => lseek(fd, offset, SEEK[what]), errno);
      return found === -ENXIO ? null : succeed('lseek', found);
    },
    willRead: (fd, offset, length) => {
      // a hint: what it answers does not matter
      functions().fadvise(fd, offset, length, POSIX_FADV_WILLNEED);
    },
    shareBlocks: (source, from, target, to, length) => {
      const { ioctl, errno } = functions();
      const range = cloneRangeOf(source, from, length, to);
      succeed(
        'ioctl',
        certain(() => ioctl(target, FICLONERANGE, 'void *', range), errno),
      );
    },
    acquireLocks: (fd, hold, free) => {
      for (const byte of hold) {
        const outcome = lock(fd, F_OFD_SETLK, flockOf(F_RDLCK, byte));
        if (outcome === -EAGAIN || outcome === -EACCES) return byte;
        succeed('fcntl', outcome);
      }
      for (const byte of free) {
        const flock = flockOf(F_WRLCK, byte);
        succeed('fcntl', lock(fd, F_OFD_GETLK, flock));
        if (flock.readInt16LE(0) !== F_UNLCK) return byte;
      }
      return null;
    },
    releaseLocks: (fd, bytes) => {
      for (const byte of bytes) succeed('fcntl', lock(fd, F_OFD_SETLK, flockOf(F_UNLCK, byte)));
    },
  };
}

/** Calls a function in another thread. False: it failed, and why is not known here. */
function offThread(of: Pick<KoffiFunction, 'async'>, ...args: readonly number[]): Promise<boolean> {
  return new Promise((resolve, reject) =>
    of.async(...args, (error: Error | null, result: number) =>
      error === null ? resolve(result === 0) : reject(error),
    ),
  );
}

interface Functions {
  readonly fallocate: KoffiFunction &
    ((fd: number, mode: number, offset: number, length: number) => number);
  fcntl(fd: number, command: number, type: 'void *', flock: Buffer): number;
  lseek(fd: number, offset: number, whence: number): number;
  fadvise(fd: number, offset: number, length: number, advice: number): number;
  ioctl(fd: number, request: number, type: 'void *', argument: Buffer): number;
  readonly syncFileRange: Pick<KoffiFunction, 'async'>;
  errno(): number;
}

function functionsOf(koffi: Koffi): Functions {
  const libc = koffi.load(null);
  return {
    fallocate: libc.func('int fallocate(int fd, int mode, int64_t offset, int64_t length)'),
    fcntl: libc.func('int fcntl(int fd, int cmd, ...)'),
    lseek: libc.func('int64_t lseek(int fd, int64_t offset, int whence)'),
    fadvise: libc.func('int posix_fadvise(int fd, int64_t offset, int64_t length, int advice)'),
    ioctl: libc.func('int ioctl(int fd, unsigned long request, ...)'),
    syncFileRange: libc.func(
      'int sync_file_range(int fd, int64_t offset, int64_t length, unsigned int flags)',
    ),
    errno: () => koffi.errno(),
  };
}

/** fcntl(2): locks of open file descriptions. */
const F_OFD_GETLK = 36;
const F_OFD_SETLK = 37;
const F_RDLCK = 0;
const F_WRLCK = 1;
const F_UNLCK = 2;

/** `struct flock` of 64-bit Linux for one byte, from the start of the file. */
function flockOf(type: number, byte: number): Buffer {
  const flock = Buffer.alloc(32);
  flock.writeInt16LE(type, 0);
  flock.writeBigInt64LE(BigInt(byte), 8);
  flock.writeBigInt64LE(1n, 16);
  return flock;
}

/** `struct file_clone_range`. */
function cloneRangeOf(source: number, from: number, length: number, to: number): Buffer {
  const range = Buffer.alloc(32);
  for (const [index, value] of [source, from, length, to].entries())
    range.writeBigUInt64LE(BigInt(value), 8 * index);
  return range;
}

const { EACCES, EAGAIN, ENXIO } = constants.errno;

/** What `call` returned, see `certain`. @throws as Node's calls do, when it failed */
function succeed(call: string, outcome: number): number {
  if (outcome < 0) throw systemError(-outcome, call);
  return outcome;
}

/** As Node makes them of its own calls. */
function systemError(errno: number, call: string): NodeJS.ErrnoException {
  const code = Object.entries(constants.errno).find(([, number]) => number === errno)?.[0];
  return Object.assign(new Error(`${code ?? errno}: ${call}`), {
    code: code ?? `errno ${errno}`,
    errno: -errno,
    syscall: call,
  });
}
