import { execFileSync, spawnSync } from 'node:child_process';
import fs from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { openBackend } from '@downfold/storage';
import { describe, expect, test } from 'vitest';
import { fileBackend, fileBackendDriver, nodeCalls } from '../src/index.ts';
import { scratch } from './support.ts';

/** A program that uses the backend, in a process of its own. */
function program(work: string): readonly string[] {
  const source = fileURLToPath(new URL('../src/index.ts', import.meta.url));
  const code = `import { fileBackend } from ${JSON.stringify(source)};
    const backend = fileBackend();
    const [directory] = process.argv.slice(1);
    ${work}`;
  return ['--conditions=@downfold/source', '--input-type=module', '--eval', code, '--'];
}

const strace = spawnSync('strace', ['-qq', '-o', '/dev/null', 'true']).status === 0;
if (!strace) console.warn('NO strace that may trace: what the kernel was asked for is not tested');

describe.skipIf(!strace)('strace sees', () => {
  test('a flush as fdatasync of the file after its writes, and flushDirectory as fsync of the directory', async () => {
    await using directory = await scratch();
    const trace = join(directory.path, 'trace');
    const work = `
      await using file = await backend.create(directory + '/image', { secret: true });
      await file.write(4096, new Uint8Array(512));
      await file.flush('bytes');
      await file.setLength(8192);
      await backend.rename(directory + '/image', directory + '/renamed');
      await backend.flushDirectory(directory, 'names');`;
    const calls = 'pwrite64,ftruncate,fdatasync,fsync,rename,renameat,renameat2,openat';
    execFileSync('strace', [
      ...['-f', '-y', '-e', `trace=${calls}`, '-o', trace, process.execPath],
      ...program(work),
      directory.path,
    ]);
    const seen = (await fs.readFile(trace, 'utf8'))
      .split('\n')
      .filter((line) => line.includes(directory.path) && !line.includes('resumed>'))
      .map((line) => line.replace(/^\d+ +/, '').replaceAll(directory.path, 'DIR'))
      .map((line) => /^(\w+)\([^<"]*(?:<([^>]*)>|"([^"]*)")/.exec(line))
      .map((match) => `${match?.[1]} ${match?.[2] ?? match?.[3]}`);
    expect(seen.map((line) => line.replace(/^openat .*/, 'openat'))).toEqual([
      'openat',
      'pwrite64 DIR/image',
      'fdatasync DIR/image',
      'ftruncate DIR/image',
      'rename DIR/image',
      'openat',
      'fsync DIR',
    ]);
  });
});

describe('a file that is to replace another', () => {
  test('has its mode, and never a wider one', async () => {
    await using directory = await scratch();
    const path = (name: string): string => join(directory.path, name);
    for (const mode of [0o600, 0o640, 0o666, 0o444]) {
      await fs.writeFile(path('old'), '');
      await fs.chmod(path('old'), mode);
      await using _ = await fileBackend().create(path('new'), { secret: false, like: path('old') });
      expect((await fs.stat(path('new'))).mode & 0o7777).toBe(mode);
      await fs.rm(path('new'));
      await fs.rm(path('old'));
    }
    await expect(
      fileBackend().create(path('new'), { secret: false, like: path('gone') }),
    ).rejects.toMatchObject({ code: 'STORAGE_NOT_FOUND' });
    await expect(fs.stat(path('new'))).rejects.toThrow('ENOENT');
  });

  test.skipIf(process.getuid?.() !== 0)('has its owner and group', async () => {
    await using directory = await scratch();
    const path = (name: string): string => join(directory.path, name);
    await fs.writeFile(path('old'), '');
    await fs.chown(path('old'), 12_345, 23_456);
    await fs.chmod(path('old'), 0o640);
    await using _ = await fileBackend().create(path('new'), { secret: false, like: path('old') });
    const { uid, gid, mode } = await fs.stat(path('new'));
    expect([uid, gid, mode & 0o7777]).toEqual([12_345, 23_456, 0o640]);
  });
});

describe('a file that may not grow any more', () => {
  test('takes what fits, as a full disk does, and says where it ended', async () => {
    await using directory = await scratch();
    const work = `
      process.on('SIGXFSZ', () => {});
      await using file = await backend.create(directory + '/image', { secret: true });
      const error = await file.write(1000, new Uint8Array(300_000).fill(7)).catch((cause) => cause);
      console.log(JSON.stringify({ code: error.code, ...error.details, length: await file.length() }));`;
    // 128 KiB: the first write stops short at the limit, the second one fails with EFBIG
    const output = execFileSync(
      'bash',
      ['-c', 'ulimit -f 128 && exec "$0" "$@"', process.execPath, ...program(work), directory.path],
      { encoding: 'utf8' },
    );
    expect(JSON.parse(output)).toEqual({
      code: 'STORAGE_NO_SPACE',
      file: `${directory.path}/image`,
      call: 'pwrite',
      errno: 'EFBIG',
      offset: 131_072,
      length: 131_072,
    });
  });
});

describe('the event loop turns', () => {
  test('while a long range is copied or zeroed: timers and signals get their chance', async () => {
    await using directory = await scratch();
    // a file system that makes zeros by itself is done at once
    const backend = openBackend(fileBackendDriver({ ...nodeCalls, zeroRange: null }));
    const length = (40 << 20) as never;
    await using source = await backend.create(join(directory.path, 'source'), { secret: false });
    await using target = await backend.create(join(directory.path, 'target'), { secret: false });
    for (const file of [source, target]) await file.setLength(length);
    for (const work of [
      () => target.copyFrom([{ source, from: 0 as never, to: 0 as never, length }]),
      () => target.writeZeroes({ offset: 0 as never, length }),
    ]) {
      // counted in turns, not in time: a busy machine must not matter
      let turns = 0;
      let next: NodeJS.Immediate;
      const count = (): void => {
        turns++;
        next = setImmediate(count);
      };
      next = setImmediate(count);
      await work();
      clearImmediate(next);
      expect(turns).toBeGreaterThan(3);
    }
  });
});
