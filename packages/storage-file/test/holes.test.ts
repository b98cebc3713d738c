import fs from 'node:fs/promises';
import { join } from 'node:path';
import { type FileRun, openBackend } from '@downfold/storage';
import { byteLength, hostOffset } from '@downfold/units';
import { describe, expect, test } from 'vitest';
import { type Calls, fileBackendDriver, nodeCalls } from '../src/index.ts';
import { scratch, systemError } from './support.ts';

const MIB = 1 << 20;
const range = { offset: hostOffset(MIB), length: byteLength(2 * MIB) };

async function filled(path: string): Promise<void> {
  await fs.writeFile(path, Buffer.alloc(4 * MIB, 7));
  const file = await fs.open(path);
  await file.sync();
  await file.close();
}

describe('holes', () => {
  test.runIf(process.platform === 'linux')('are there on Linux: koffi is installed', () => {
    expect(nodeCalls.punchHole).not.toBeNull();
  });

  test.skipIf(nodeCalls.punchHole === null)('give host space back and read as zeros', async () => {
    await using directory = await scratch();
    const path = join(directory.path, 'file');
    await filled(path);
    await using storage = await openBackend(fileBackendDriver()).open(path, 'write');
    const before = (await fs.stat(path)).blocks;
    await storage.discard(range);
    const after = await fs.stat(path);
    expect((before - after.blocks) * 512).toBeGreaterThanOrEqual(2 * MIB);
    expect(after.size).toBe(4 * MIB);
    const expected = Buffer.alloc(4 * MIB, 7).fill(0, MIB, 3 * MIB);
    expect((await fs.readFile(path)).equals(expected)).toBe(true);
  });

  test.skipIf(nodeCalls.punchHole === null)('that are long leave the event loop free', async () => {
    await using directory = await scratch();
    const path = join(directory.path, 'file');
    await filled(path);
    const punchHole = (): never => {
      throw new Error('on the main thread');
    };
    const backend = openBackend(fileBackendDriver({ ...nodeCalls, punchHole }));
    await using storage = await backend.open(path, 'write');
    await storage.discard({ offset: hostOffset(0), length: byteLength(4 * MIB) });
    const { blocks, size } = await fs.stat(path);
    expect([blocks, size]).toEqual([0, 4 * MIB]);
    expect((await fs.readFile(path)).equals(Buffer.alloc(4 * MIB))).toBe(true);
  });

  test('on a file system without them become zeros, up to the end of the file', async () => {
    await using directory = await scratch();
    const path = join(directory.path, 'file');
    await filled(path);
    const punchHole = (): never => {
      throw systemError('EOPNOTSUPP');
    };
    // what is long is tried off the main thread first
    const punchOffThread = async (): Promise<boolean> => false;
    const backend = openBackend(fileBackendDriver({ ...nodeCalls, punchHole, punchOffThread }));
    await using storage = await backend.open(path, 'write');
    await storage.discard({ offset: hostOffset(3 * MIB), length: byteLength(9 * MIB) });
    const expected = Buffer.alloc(4 * MIB, 7).fill(0, 3 * MIB);
    expect((await fs.readFile(path)).equals(expected)).toBe(true);
  });

  test('that fail otherwise are errors with file, call and byte', async () => {
    await using directory = await scratch();
    const path = join(directory.path, 'file');
    await filled(path);
    const punchHole = (): never => {
      throw systemError('EIO');
    };
    const backend = openBackend(fileBackendDriver({ ...nodeCalls, punchHole }));
    await using storage = await backend.open(path, 'write');
    await expect(storage.discard(range)).rejects.toMatchObject({
      code: 'STORAGE_IO',
      details: { file: path, call: 'fallocate', offset: MIB },
    });
  });
});

describe('runs', () => {
  const runsWith = async (change: Partial<Calls>, path: string): Promise<FileRun> => {
    const backend = openBackend(fileBackendDriver({ ...nodeCalls, ...change }));
    await using storage = await backend.open(path, 'write');
    return await storage.runAt(hostOffset(5));
  };

  test('are one of bytes where the system cannot tell', async () => {
    await using directory = await scratch();
    const path = join(directory.path, 'file');
    await fs.writeFile(path, 'x');
    await fs.truncate(path, 8 * MIB);
    const bytes = { hole: false, end: 8 * MIB };
    expect(await runsWith({ seek: null }, path)).toEqual(bytes);
    const seek = (): never => {
      throw systemError('EINVAL');
    };
    expect(await runsWith({ seek }, path)).toEqual(bytes);
  });

  test('are errors with file, call and byte where it fails otherwise', async () => {
    await using directory = await scratch();
    const path = join(directory.path, 'file');
    await filled(path);
    const seek = (): never => {
      throw systemError('EIO');
    };
    await expect(runsWith({ seek }, path)).rejects.toMatchObject({
      code: 'STORAGE_IO',
      details: { file: path, call: 'lseek', offset: 5 },
    });
  });

  test.skipIf(nodeCalls.seek === null)('that are holes stay holes under zeros', async () => {
    await using directory = await scratch();
    const path = join(directory.path, 'file');
    await filled(path);
    await fs.truncate(path, 2 ** 30);
    await using storage = await openBackend(fileBackendDriver()).open(path, 'write');
    await storage.writeZeroes({ offset: hostOffset(MIB), length: byteLength(2 ** 30) });
    expect((await fs.stat(path)).blocks * 512).toBeLessThanOrEqual(5 * MIB);
    const start = Buffer.alloc(5 * MIB);
    await storage.read(hostOffset(0), start);
    expect(await storage.runAt(hostOffset(5 * MIB))).toEqual({ hole: true, end: 2 ** 53 - 1 });
    expect(start.equals(Buffer.concat([Buffer.alloc(MIB, 7), Buffer.alloc(4 * MIB)]))).toBe(true);
  });
});

describe('zeros', () => {
  /** Makes zeros of a part of a file of data, and compares all of it; resolves with what was written by hand. */
  async function zeroed(
    zeroRange: typeof nodeCalls.zeroRange,
    part: typeof range,
  ): Promise<readonly number[]> {
    await using directory = await scratch();
    const path = join(directory.path, 'file');
    await filled(path);
    const written: number[] = [];
    const calls: typeof nodeCalls = {
      ...nodeCalls,
      zeroRange,
      writeSync: (fd, source, offset) => {
        written.push(source.length);
        return nodeCalls.writeSync(fd, source, offset);
      },
    };
    await using storage = await openBackend(fileBackendDriver(calls)).open(path, 'write');
    await storage.writeZeroes(part);
    const end = part.offset + part.length;
    const expected = Buffer.alloc(Math.max(4 * MIB, end), 7).fill(0, part.offset, end);
    expect((await fs.readFile(path)).equals(expected)).toBe(true);
    return written;
  }
  const askew = { offset: hostOffset(MIB + 77), length: byteLength(2 * MIB + 5) };
  const beyond = { offset: hostOffset(2 * MIB + 1), length: byteLength(5 * MIB) };

  test.skipIf(nodeCalls.zeroRange === null)('are made by the file system', async () => {
    for (const part of [range, askew]) expect(await zeroed(nodeCalls.zeroRange, part)).toEqual([]);
    // the byte that makes the file longer
    expect(await zeroed(nodeCalls.zeroRange, beyond)).toEqual([1]);
  });

  test.each(['EOPNOTSUPP', 'EINVAL', 'ENOSPC', 'EIO'])(
    'are written where it does not (%s), and it is asked once',
    async (errno) => {
      let asked = 0;
      const refuses = (): never => {
        asked += 1;
        throw systemError(errno);
      };
      for (const part of [range, askew, beyond])
        expect((await zeroed(refuses, part)).length).toBeGreaterThan(7);
      expect(asked).toBe(3);
    },
  );

  test('a few are written', async () => {
    const refuses = (): never => {
      throw new Error('was asked');
    };
    const few = { offset: hostOffset(5), length: byteLength(100_000) };
    expect(await zeroed(refuses, few)).toEqual([100_000]);
  });
});
