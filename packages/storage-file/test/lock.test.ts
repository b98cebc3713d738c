import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { LOSER, type LockRequest, openBackend, READER, WRITER } from '@downfold/storage';
import { describe, expect, test } from 'vitest';
import { fileBackend, fileBackendDriver, nodeCalls } from '../src/index.ts';
import { perlLocks } from '../src/ofd-locks.ts';
import { haveQemu, scratch } from './support.ts';

/** What QEMU says of an image that we hold, and what it lets us hold of one that it has: facts on crash safety, 4.1. */

const NAMED = { READER, WRITER, LOSER };
type Name = keyof typeof NAMED;

/** base.qcow2 <- over.qcow2 in a directory of its own. */
async function withPair(work: (directory: string) => Promise<void>): Promise<void> {
  await using directory = await scratch();
  const qemuImg = (...args: string[]): void =>
    void execFileSync('qemu-img', args, { cwd: directory.path });
  qemuImg('create', '-q', '-f', 'qcow2', 'base.qcow2', '1M');
  qemuImg('create', '-q', '-f', 'qcow2', '-b', 'base.qcow2', '-F', 'qcow2', 'over.qcow2');
  await work(directory.path);
}

/** What a QEMU tool that wants base.qcow2 is refused with; null: it works. */
const TOOLS: Readonly<Record<string, readonly string[]>> = {
  'read-only open': ['qemu-io', '-r', '-f', 'qcow2', '-c', 'read -q 0 4k', 'base.qcow2'],
  'writable open': ['qemu-io', '-f', 'qcow2', '-c', 'read -q 0 4k', 'base.qcow2'],
  'forced share': ['qemu-io', '-r', '-U', '-f', 'qcow2', '-c', 'read -q 0 4k', 'base.qcow2'],
  info: ['qemu-img', 'info', '-f', 'qcow2', 'base.qcow2'],
  check: ['qemu-img', 'check', '-f', 'qcow2', 'base.qcow2'],
  'overlay of it': ['qemu-io', '-f', 'qcow2', '-c', 'read -q 0 4k', 'over.qcow2'],
  'commit into it': ['qemu-img', 'commit', '-q', '-f', 'qcow2', 'over.qcow2'],
};

function refusal(cwd: string, [command, ...args]: readonly string[]): string | null {
  const { stderr, stdout } = spawnSync(command as string, args, { cwd, encoding: 'utf8' });
  return /Failed to get (?:shared )?"[a-z ]+" lock/.exec(stderr + stdout)?.[0] ?? null;
}

const WRITE = 'Failed to get "write" lock';
const SHARED_WRITE = 'Failed to get shared "write" lock';
const READ = 'Failed to get "consistent read" lock';
const MET: Readonly<Record<Name, Readonly<Record<string, string | null>>>> = {
  READER: {
    'read-only open': null,
    'writable open': WRITE,
    'forced share': null,
    info: null,
    check: null,
    'overlay of it': null,
    'commit into it': WRITE,
  },
  WRITER: {
    'read-only open': SHARED_WRITE,
    'writable open': WRITE,
    'forced share': null,
    info: SHARED_WRITE,
    check: SHARED_WRITE,
    'overlay of it': SHARED_WRITE,
    'commit into it': SHARED_WRITE,
  },
  LOSER: {
    'read-only open': READ,
    'writable open': READ,
    'forced share': READ,
    info: null,
    check: READ,
    'overlay of it': READ,
    'commit into it': READ,
  },
};

const WAYS = { koffi: nodeCalls, perl: { ...nodeCalls, locks: perlLocks } };

describe.skipIf(!haveQemu)('QEMU meets our locks', () => {
  test.each(
    Object.entries(WAYS).flatMap(([way, calls]) =>
      (Object.keys(NAMED) as Name[]).map((name) => ({ way, calls, name })),
    ),
  )('$name by $way', async ({ calls, name }) => {
    await withPair(async (directory) => {
      const backend = openBackend(fileBackendDriver(calls));
      {
        await using _held = await backend.lock(join(directory, 'base.qcow2'), NAMED[name]);
        const met = Object.entries(TOOLS).map(([tool, args]) => [tool, refusal(directory, args)]);
        expect(Object.fromEntries(met)).toEqual(MET[name]);
      }
      expect(refusal(directory, TOOLS['writable open'] as string[])).toBeNull();
    });
  });
});

/** QEMU with over.qcow2 open, until it is killed. */
async function qemuOn(cwd: string, ...args: string[]): Promise<ChildProcess> {
  const child = spawn('qemu-io', ['-f', 'qcow2', ...args, 'over.qcow2'], {
    cwd,
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  child.stdin?.write('length\n');
  await once(child.stdout as NodeJS.ReadableStream, 'data');
  return child;
}

describe.skipIf(!haveQemu)('we meet QEMU’s locks', () => {
  const ofBase: readonly [string[], Name, Name | null][] = [
    // how QEMU has over.qcow2 open; what we may hold of base, and of over
    [[], 'READER', null],
    [['-r'], 'READER', 'READER'],
    [['-r', '-U'], 'WRITER', 'WRITER'],
  ];
  const may = (wanted: Name, most: Name | null): boolean =>
    most === 'WRITER' ? wanted !== 'LOSER' : most === wanted;

  test.each(ofBase)('open with %j: base up to %s, over up to %s', async (args, base, over) => {
    await withPair(async (directory) => {
      const child = await qemuOn(directory, ...args);
      try {
        for (const [file, most] of [
          ['base.qcow2', base],
          ['over.qcow2', over],
        ] as const)
          for (const name of Object.keys(NAMED) as Name[]) {
            const held = fileBackend().lock(join(directory, file), NAMED[name]);
            const refused = await held.then(
              async (lock) => {
                await lock[Symbol.asyncDispose]();
                return null;
              },
              (cause: unknown) => cause,
            );
            if (may(name, most)) expect(refused, `${name} of ${file}`).toBeNull();
            else
              expect(refused, `${name} of ${file}`).toMatchObject({
                code: 'STORAGE_LOCKED',
                message: expect.stringContaining(`qemu-io (process ${child.pid})`),
              });
          }
      } finally {
        child.kill('SIGKILL');
        await once(child, 'exit');
      }
      // a killed process holds nothing
      await using _all = await fileBackend().lock(join(directory, 'over.qcow2'), LOSER);
    });
  });
});

test('where the file system may be another machine’s the lock says so', async () => {
  await using directory = await scratch();
  const path = join(directory.path, 'file');
  writeFileSync(path, '');
  for (const [type, remote] of [
    [0x6969, true],
    [0x65735546, true],
    // statfs gives it as a signed number
    [0xff534d42 | 0, true],
    [0xef53, false],
    [0x58465342, false],
  ] as const) {
    const backend = openBackend(fileBackendDriver({ ...nodeCalls, fileSystem: async () => type }));
    await using lock = await backend.lock(path, READER);
    expect(lock.remote).toBe(remote);
  }
});

test('where there are no locks nobody pretends', async () => {
  await using directory = await scratch();
  const path = join(directory.path, 'file');
  writeFileSync(path, '');
  const backend = openBackend(fileBackendDriver({ ...nodeCalls, locks: null }));
  await expect(backend.lock(path, READER)).rejects.toMatchObject({ code: 'STORAGE_UNSUPPORTED' });
});

test('locks that the system refuses for another reason are an error, not a conflict', async () => {
  await using directory = await scratch();
  const path = join(directory.path, 'file');
  writeFileSync(path, '');
  const refuse = async (): Promise<never> => {
    throw Object.assign(new Error('ENOLCK: injected'), { code: 'ENOLCK' });
  };
  const locks = { acquire: refuse, release: refuse };
  const backend = openBackend(fileBackendDriver({ ...nodeCalls, locks }));
  const request: LockRequest = READER;
  await expect(backend.lock(path, request)).rejects.toMatchObject({
    code: 'STORAGE_IO',
    details: { call: 'fcntl', errno: 'ENOLCK' },
  });
});

/** Two processes that want the same at the same moment: both may be refused, never both succeed. */
test('of many that race at most one has it', async () => {
  await using directory = await scratch();
  const path = join(directory.path, 'file');
  writeFileSync(path, '');
  const racing = Array.from({ length: 40 }, async () => {
    const locks = await Promise.allSettled([
      fileBackend().lock(path, WRITER),
      openBackend(fileBackendDriver(WAYS.perl)).lock(path, WRITER),
    ]);
    return locks.flatMap((one) => (one.status === 'fulfilled' ? [one.value] : []));
  });
  const won = (await Promise.all(racing)).flat();
  expect(won.length).toBeLessThanOrEqual(1);
  for (const lock of won) await lock[Symbol.asyncDispose]();
});
