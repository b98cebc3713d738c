import fs from 'node:fs/promises';
import { join } from 'node:path';
import { openBackend } from '@downfold/storage';
import { byteLength, hostOffset } from '@downfold/units';
import { describe, expect, test } from 'vitest';
import { fileBackendDriver, nodeCalls } from '../src/index.ts';
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

  test('on a file system without them become zeros, up to the end of the file', async () => {
    await using directory = await scratch();
    const path = join(directory.path, 'file');
    await filled(path);
    const punchHole = (): never => {
      throw systemError('EOPNOTSUPP');
    };
    const backend = openBackend(fileBackendDriver({ ...nodeCalls, punchHole }));
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
