import { execFileSync, spawnSync } from 'node:child_process';
import fs from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { fileBackend } from '../src/index.ts';
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
    const backend = fileBackend();
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
