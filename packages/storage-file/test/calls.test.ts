import fs from 'node:fs';
import { join } from 'node:path';
import { type CopyPiece, openBackend, type Storage } from '@downfold/storage';
import { byteLength, hostOffset } from '@downfold/units';
import { describe, expect, test } from 'vitest';
import { type Calls, fileBackendDriver, nodeCalls } from '../src/index.ts';
import { nativeCalls } from '../src/native.ts';
import { scratch, systemError } from './support.ts';

const at = hostOffset;
const MEBIBYTE = 1 << 20;

/** Runs `work` on two files whose system calls are changed; zeros are written. */
async function withCalls(
  changed: Partial<Calls>,
  work: (file: Storage, other: Storage, path: string) => Promise<void>,
): Promise<void> {
  await using directory = await scratch();
  const path = join(directory.path, 'file');
  const backend = openBackend(fileBackendDriver({ ...nodeCalls, zeroRange: null, ...changed }));
  await using file = await backend.create(path, { secret: false });
  await using other = await backend.create(`${path}-other`, { secret: false });
  await work(file, other, path);
}

describe('counts', () => {
  test('one byte at a time is enough', async () => {
    const one: Partial<Calls> = {
      readSync: (fd, target, offset) => nodeCalls.readSync(fd, target.subarray(0, 1), offset),
      writeSync: (fd, source, offset) => nodeCalls.writeSync(fd, source.subarray(0, 1), offset),
    };
    await withCalls(one, async (file, other) => {
      const bytes = Uint8Array.from({ length: 3000 }, (_, index) => 1 + (index % 250));
      await file.write(at(10), bytes);
      await other.copyFrom([{ source: file, from: at(0), to: at(5), length: byteLength(4000) }]);
      await other.writeZeroes({ offset: at(1000), length: byteLength(2) });
      const expected = new Uint8Array(4005);
      expected.set(bytes, 15);
      expected.fill(0, 1000, 1002);
      const found = new Uint8Array(4005);
      await other.read(at(0), found);
      expect(found).toEqual(expected);
    });
  });

  test('a write that writes nothing is an error, not a loop without end', async () => {
    await withCalls({ writeSync: () => 0 }, async (file, other) => {
      const refused = { code: 'STORAGE_IO', details: { call: 'pwrite', offset: 3 } };
      await expect(file.write(at(3), new Uint8Array(5))).rejects.toMatchObject(refused);
      await expect(
        file.copyFrom([{ source: other, from: at(0), to: at(3), length: byteLength(5) }]),
      ).rejects.toMatchObject(refused);
    });
  });

  test('no read moves more than 1 GiB: Node takes lengths of 31 bits; no write more than 256 KiB', async () => {
    const lengths: number[] = [];
    const count = (bytes: Uint8Array): number => {
      lengths.push(bytes.length);
      return bytes.length;
    };
    const changed: Partial<Calls> = {
      readSync: (_fd, target) => count(target),
      read: async (_fd, target) => count(target),
      writeSync: (_fd, source) => count(source),
    };
    await withCalls(changed, async (file) => {
      // the memory is never touched, and so never there
      const huge = new Uint8Array(2 ** 31 + 1);
      await file.read(at(0), huge);
      expect(lengths.splice(0)).toEqual([2 ** 30, 2 ** 30, 1]);
      await file.write(at(0), huge);
    });
    expect([...new Set(lengths)]).toEqual([256 << 10, 1]);
    expect(lengths).toHaveLength(2 ** 13 + 1);
  });
});

describe('what is written behind', () => {
  /** A file whose write-behinds and flushes wait until they are let go, or fail, one by one. */
  async function withSyncs(
    work: (
      file: Storage,
      syncs: { readonly resolve: () => void; readonly reject: (cause: Error) => void }[],
    ) => Promise<void>,
  ): Promise<void> {
    const syncs: PromiseWithResolvers<void>[] = [];
    const wait = (): Promise<void> => {
      const sync = Promise.withResolvers<void>();
      syncs.push(sync);
      return sync.promise;
    };
    const writeSync = (_fd: number, source: Uint8Array): number => source.length;
    await withCalls({ writeOut: wait, fdatasync: wait, writeSync }, (file) => work(file, syncs));
  }
  const half = new Uint8Array(8 * MEBIBYTE);

  test('starts after 16 MiB, once at a time, and goes on with the next write', async () => {
    await withSyncs(async (file, syncs) => {
      await file.write(at(0), half);
      expect(syncs.length).toBe(0);
      await file.write(at(0), half);
      expect(syncs.length).toBe(1);
      for (let turn = 0; turn < 4; turn++) await file.write(at(0), half);
      expect(syncs.length).toBe(1);
      syncs[0]?.resolve();
      await Promise.resolve();
      await Promise.resolve();
      await file.write(at(0), half);
      expect(syncs.length).toBe(2);
      syncs[1]?.resolve();
    });
  });

  test.each(['before', 'during'] as const)(
    'what it fails with %s a flush fails the flush: the system says it once',
    async (when) => {
      await withSyncs(async (file, syncs) => {
        await file.write(at(0), half);
        await file.write(at(0), half);
        const fail = (): void => syncs[0]?.reject(systemError('EIO'));
        if (when === 'before') fail();
        const refused = expect(file.flush('test')).rejects.toMatchObject({
          code: 'STORAGE_FLUSH_FAILED',
        });
        await new Promise(setImmediate);
        expect(syncs.length).toBe(2);
        syncs[1]?.resolve();
        await new Promise(setImmediate);
        if (when === 'during') fail();
        await refused;
        await expect(file.write(at(0), half)).rejects.toMatchObject({
          code: 'STORAGE_FLUSH_FAILED',
        });
      });
    },
  );

  test('is waited for before the file is closed: its descriptor may be another file afterwards', async () => {
    await withSyncs(async (file, syncs) => {
      await file.write(at(0), half);
      await file.write(at(0), half);
      let closed = false;
      const closing = file[Symbol.asyncDispose]().then(() => {
        closed = true;
      });
      await new Promise((resolve) => setTimeout(resolve, 20));
      expect(closed).toBe(false);
      syncs[0]?.resolve();
      await closing;
    });
  });
});

describe('what will be read of a disk', () => {
  const withPace = async (
    slow: boolean,
    use: (file: Storage, other: Storage, seen: unknown[]) => Promise<void>,
  ): Promise<void> => {
    const seen: unknown[] = [];
    let now = 0;
    const changed: Partial<Calls> = {
      now: () => now,
      shareBlocks: null,
      willRead: (_fd, offset, length) => void seen.push([offset, length]),
      readSync: (fd, target, offset) => {
        now += slow ? 4 : 0.2;
        seen.push('read');
        return nodeCalls.readSync(fd, target, offset);
      },
    };
    await withCalls(changed, async (file, other) => {
      await file.setLength(byteLength(16 * MEBIBYTE));
      await other.copyFrom([piece(file, 0)]);
      seen.length = 0;
      await use(file, other, seen);
    });
  };
  const piece = (source: Storage, mebibyte: number): CopyPiece => {
    const from = at(mebibyte * MEBIBYTE);
    return { source, from, to: from, length: byteLength(MEBIBYTE) };
  };

  test.each([true, false])('is announced, what is in memory is not (slow: %s)', async (slow) => {
    await withPace(slow, async (file, _other, seen) => {
      file.willRead?.(at(9 * MEBIBYTE), 100);
      expect(seen).toEqual(slow ? [[9 * MEBIBYTE, 100]] : []);
    });
  });

  test('by copies at once is announced before the first of them waits for it', async () => {
    await withPace(true, async (file, other, seen) => {
      const copy = (mebibyte: number): Promise<void> => {
        file.willRead?.(at(mebibyte * MEBIBYTE), MEBIBYTE);
        return other.copyFrom([piece(file, mebibyte)]);
      };
      await Promise.all([4, 8, 12].map(copy));
      const announced = [4, 8, 12].map((mebibyte) => [mebibyte * MEBIBYTE, MEBIBYTE]);
      expect(seen.slice(0, 4)).toEqual([...announced, 'read']);
    });
  });
});

describe('a signal that interrupts a call', () => {
  test('makes no difference to reads and writes', async () => {
    let left = 0;
    const interrupted = (): void => {
      if (left-- > 0) throw systemError('EINTR');
    };
    const changed: Partial<Calls> = {
      readSync: (...of) => {
        interrupted();
        return nodeCalls.readSync(...of);
      },
      writeSync: (...of) => {
        interrupted();
        return nodeCalls.writeSync(...of);
      },
      read: async (...of) => {
        interrupted();
        return await nodeCalls.read(...of);
      },
    };
    await withCalls(changed, async (file, other) => {
      const bytes = new Uint8Array(MEBIBYTE).fill(7);
      left = 3;
      await file.write(at(0), bytes);
      left = 3;
      await other.copyFrom([
        { source: file, from: at(0), to: at(0), length: byteLength(MEBIBYTE) },
      ]);
      for (const length of [100, MEBIBYTE]) {
        left = 3;
        const target = new Uint8Array(length);
        await other.read(at(0), target);
        expect(target).toEqual(bytes.subarray(0, length));
        expect(left).toBeLessThan(0);
      }
    });
  });
});

describe('errors', () => {
  type Operation = (file: Storage, other: Storage) => Promise<unknown>;
  const bytes = new Uint8Array(MEBIBYTE + 5);
  const range = { offset: at(0), length: byteLength(2 * MEBIBYTE + 5) };
  const operations: Record<string, { call: keyof Calls; name: string; run: Operation }> = {
    'a small read': {
      call: 'readSync',
      name: 'pread',
      run: (f) => f.read(at(0), bytes.slice(0, 9)),
    },
    'a large read': { call: 'read', name: 'pread', run: (f) => f.read(at(0), bytes.slice()) },
    'a write': { call: 'writeSync', name: 'pwrite', run: (f) => f.write(at(0), bytes) },
    zeroing: { call: 'writeSync', name: 'pwrite', run: (f) => f.writeZeroes(range) },
    'the source of a copy': {
      call: 'readSync',
      name: 'pread',
      run: (f, other) =>
        f.copyFrom([{ source: other, from: at(0), to: at(0), length: range.length }]),
    },
    'the target of a copy': {
      call: 'writeSync',
      name: 'pwrite',
      run: (f, other) =>
        f.copyFrom([{ source: other, from: at(0), to: at(0), length: range.length }]),
    },
  };
  const cases = Object.entries(operations).flatMap(([what, operation]) =>
    (['EIO', 'ENOSPC'] as const).map((errno) => ({ what, errno, ...operation })),
  );

  test.each(cases)('$errno in any system call of $what is reported', async (item) => {
    for (let nth = 1; ; nth++) {
      let armed = false;
      let calls = 0;
      /** Moves at most 600,000 bytes, and fails at its turn. */
      const changed = (fd: number, of: Uint8Array, offset: number): unknown => {
        if (armed && ++calls === nth) throw systemError(item.errno);
        return nodeCalls[item.call as 'readSync'](fd, of.subarray(0, 600_000), offset);
      };
      let failure: unknown;
      // what is zeroed is no hole
      await withCalls({ [item.call]: changed, seek: null }, async (file, other) => {
        for (const one of [file, other]) await one.setLength(range.length);
        armed = true;
        failure = await item.run(file, other).then(
          () => null,
          (cause: unknown) => cause,
        );
        armed = false;
      });
      if (calls < nth) {
        expect(failure).toBeNull();
        expect(nth).toBeGreaterThan(item.what === 'a small read' ? 1 : 2);
        return;
      }
      expect(failure).toMatchObject({
        code: item.errno === 'EIO' ? 'STORAGE_IO' : 'STORAGE_NO_SPACE',
        details: { call: item.name, errno: item.errno },
        cause: { code: item.errno },
      });
      expect(String(failure)).toMatch(/file(-other)?: .*at byte \d+/);
    }
  });

  test('of a write that stopped short: what was written before is there', async () => {
    let calls = 0;
    const changed: Partial<Calls> = {
      writeSync: (fd, source, offset) => {
        calls += 1;
        if (calls === 2) throw systemError('ENOSPC');
        return nodeCalls.writeSync(fd, source.subarray(0, 100), offset);
      },
    };
    await withCalls(changed, async (file, _other, path) => {
      await expect(file.write(at(50), new Uint8Array(300).fill(7))).rejects.toMatchObject({
        code: 'STORAGE_NO_SPACE',
        details: { file: path, call: 'pwrite', errno: 'ENOSPC', offset: 150 },
      });
      expect(await file.length()).toBe(150);
    });
  });

  test('of ftruncate are reported', async () => {
    const ftruncate = (): Promise<never> => Promise.reject(systemError('ENOSPC'));
    await withCalls({ ftruncate }, async (file) => {
      await expect(file.setLength(byteLength(5))).rejects.toMatchObject({
        code: 'STORAGE_NO_SPACE',
        details: { call: 'ftruncate' },
      });
    });
  });
});

describe('flushes', () => {
  test.each(['EIO', 'ENOSPC', 'EINTR'])(
    '%s in fdatasync is final, and asked for once',
    async (errno) => {
      let calls = 0;
      const fdatasync = async (): Promise<void> => {
        calls += 1;
        if (calls === 1) throw systemError(errno);
      };
      await withCalls({ fdatasync }, async (file, other) => {
        await file.write(at(0), new Uint8Array(10));
        for (let time = 0; time < 2; time++)
          await expect(file.flush('W6')).rejects.toMatchObject({ code: 'STORAGE_FLUSH_FAILED' });
        await expect(file.write(at(0), new Uint8Array(10))).rejects.toMatchObject({
          code: 'STORAGE_FLUSH_FAILED',
          cause: { code: errno === 'ENOSPC' ? 'STORAGE_NO_SPACE' : 'STORAGE_IO' },
        });
        expect(calls).toBe(1);
        await other.flush('another file');
      });
    },
  );

  test('every flush is one fdatasync of that file, and flushDirectory an fsync of the directory', async () => {
    await using directory = await scratch();
    const synced: string[] = [];
    const named = (fd: number): string => fs.readlinkSync(`/proc/self/fd/${fd}`);
    const backend = openBackend(
      fileBackendDriver({
        ...nodeCalls,
        fdatasync: async (fd) => void synced.push(`fdatasync ${named(fd)}`),
        fsync: async (fd) => void synced.push(`fsync ${named(fd)}`),
      }),
    );
    await using file = await backend.create(join(directory.path, 'a'), { secret: false });
    await file.flush('bytes');
    await backend.flushDirectory(directory.path, 'names');
    expect(synced).toEqual([`fdatasync ${directory.path}/a`, `fsync ${directory.path}`]);
  });

  test('an error in the fsync of a directory is reported', async () => {
    await using directory = await scratch();
    const fsync = (): Promise<never> => Promise.reject(systemError('EIO'));
    const backend = openBackend(fileBackendDriver({ ...nodeCalls, fsync }));
    await expect(backend.flushDirectory(directory.path, 'names')).rejects.toMatchObject({
      code: 'STORAGE_FLUSH_FAILED',
      details: { file: directory.path, barrier: 'names' },
      cause: { code: 'STORAGE_IO', details: { call: 'fsync', errno: 'EIO' } },
    });
  });
});

describe('what has the system begin to write', () => {
  test('needs no flush where koffi is there; else the flush says what stands in the way', async () => {
    await using directory = await scratch();
    const handle = await fs.promises.open(join(directory.path, 'file'), 'w+');
    await handle.write(new Uint8Array(MEBIBYTE));
    const { fd } = handle;
    // the very call that `writeOut` does without a flush for
    if (nativeCalls() !== null) expect(await nativeCalls()?.startWriting(fd)).toBe(true);
    await nodeCalls.writeOut(fd);
    await handle.close();
    if (nativeCalls() !== null) expect(await nativeCalls()?.startWriting(fd)).toBe(false);
    await expect(nodeCalls.writeOut(fd)).rejects.toMatchObject({ code: 'EBADF' });
  });
});
