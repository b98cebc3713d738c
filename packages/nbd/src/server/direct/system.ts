import { certain, findKoffi, loadKoffi } from '@downfold/native';

/** Numbers of Linux, the same on all processors that koffi has binaries for. */
export const EINTR = 4;
export const EAGAIN = 11;
const EOPNOTSUPP = 95;
export const POLLIN = 1;
export const POLLOUT = 4;
const EFD_NONBLOCK = 0o4000;
const EFD_CLOEXEC = 0o2000000;
const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;
const RWF_NOWAIT = 8;
const POSIX_FADV_WILLNEED = 3;
const SOL_SOCKET = 1;
const SO_SNDBUF = 7;
/** As SO_SNDBUF, past the system's limit, for who may. */
const SO_SNDBUFFORCE = 32;
const SHARE = 2 ** 32;

/** Bytes at a fixed address, from the start of a page: reads into others can be several times slower. Never moved, never freed while in use. */
export interface Region {
  readonly bytes: Buffer;
  readonly address: number;
}

/** System calls of a thread that serves by itself. Those that fail return their error number, below zero. */
export interface System {
  region(length: number): Region;
  /** An event counter that does not block. */
  eventfd(): number;
  /** How many have something; below zero, whatever failed. @param entries address of `count` structures of 8 bytes @param timeout milliseconds */
  poll(entries: number, count: number, timeout: number): number;
  /** Has a socket hold so many bytes that its peer has not taken, or as many as the system allows. */
  widen(fd: number, bytes: number): void;
  receive(fd: number, address: number, length: number): number;
  send(fd: number, address: number, length: number): number;
  /** Waits for the disk; short, or -1, for what cannot be read. */
  read(fd: number, address: number, length: number, offset: number): number;
  /** What is in memory already; short, or -1, for what is not. */
  readNow(fd: number, address: number, length: number, offset: number): number;
  /** These bytes will be read soon. */
  willRead(fd: number, offset: number, length: number): void;
}

/** Loads them; in the thread that calls them. Null: there are none, see `findKoffi`. */
export function loadSystem(): System | null {
  const path = findKoffi();
  if (path === null) return null;
  const koffi = loadKoffi(path);
  const libc = koffi.load(null);
  const errno = (): number => koffi.errno();
  // tells where the bytes of a buffer lie: it finds the first zero of a new one
  const find = libc.func('uintptr_t memchr(void *bytes, int value, size_t length)');
  const poll = libc.func('int poll(uintptr_t entries, unsigned long count, int timeout)');
  const recv = libc.func('int64_t recv(int fd, uintptr_t to, size_t length, int flags)');
  const send = libc.func('int64_t send(int fd, uintptr_t from, size_t length, int flags)');
  const pread = libc.func('int64_t pread(int fd, uintptr_t to, size_t length, int64_t offset)');
  const preadv2 = libc.func(
    'int64_t preadv2(int fd, uintptr_t parts, int count, int64_t offset, int flags)',
  );
  const fadvise = libc.func(
    'int posix_fadvise(int fd, int64_t offset, int64_t length, int advice)',
  );
  const setsockopt = libc.func(
    'int setsockopt(int fd, int level, int name, uintptr_t value, unsigned int length)',
  );
  const eventfd = libc.func('int eventfd(unsigned int value, int flags)');
  const region = (length: number): Region => {
    // resizable buffers begin with a page
    const bytes = Buffer.from(new ArrayBuffer(length, { maxByteLength: length }), 0, length);
    return { bytes, address: Number(find(bytes, 0, length)) };
  };
  // `struct iovec`
  const part = region(16);
  const words = new Uint32Array(part.bytes.buffer, 0, 4);
  let nowait = true;
  return {
    region,
    eventfd: () => certain(() => eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC), errno),
    poll,
    widen: (fd, bytes) => {
      words[0] = bytes;
      for (const name of [SO_SNDBUFFORCE, SO_SNDBUF])
        if (setsockopt(fd, SOL_SOCKET, name, part.address, 4) === 0) return;
    },
    receive: (fd, address, length) => certain(() => recv(fd, address, length, MSG_DONTWAIT), errno),
    send: (fd, address, length) =>
      certain(() => send(fd, address, length, MSG_DONTWAIT | MSG_NOSIGNAL), errno),
    read: pread,
    readNow: (fd, address, length, offset) => {
      if (!nowait) return pread(fd, address, length, offset);
      words[0] = address % SHARE;
      words[1] = Math.floor(address / SHARE);
      words[2] = length;
      const attempt = (): number => preadv2(fd, part.address, 1, offset, RWF_NOWAIT);
      const count = attempt();
      if (count >= 0 || errno() !== EOPNOTSUPP) return count;
      // a file system that cannot tell
      nowait = certain(attempt, errno) !== -EOPNOTSUPP;
      return pread(fd, address, length, offset);
    },
    willRead: (fd, offset, length) => void fadvise(fd, offset, length, POSIX_FADV_WILLNEED),
  };
}
