import { spawn } from 'node:child_process';
import { mkdir, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { must, run } from './process.ts';
import { scratch } from './scratch.ts';

/** A directory to try things in; goes with all that lies in it when it goes out of scope (`await using`). */
export interface TrialDirectory extends AsyncDisposable {
  readonly path: string;
  /** The file system it lies on. */
  readonly kind: string;
}

/** File systems that users keep images on, and how to make an empty one. */
const MAKERS = {
  ext4: ['mkfs.ext4', '-q', '-F'],
  xfs: ['mkfs.xfs', '-q', '-f'],
  btrfs: ['mkfs.btrfs', '-q', '-f'],
} as const;

/** One of them. */
type LoopKind = keyof typeof MAKERS;
const LOOP_KINDS: readonly LoopKind[] = ['ext4', 'xfs', 'btrfs'];

/** Bytes of a file system, of which only what is used takes space. XFS takes no less than 300 MB. */
const SIZE = 3 * 2 ** 30;

/** A directory below `TMPDIR`, on whatever file system that is. */
export async function plainDirectory(): Promise<TrialDirectory> {
  const directory = await scratch('here');
  const kind = (await must('stat', ['-f', '-c', '%T', directory.path])).trim();
  return {
    path: directory.path,
    kind: `here (${kind})`,
    [Symbol.asyncDispose]: () => directory[Symbol.asyncDispose](),
  };
}

/** Directories to try things in, one after the other. */
export interface TrialDirectories extends AsyncDisposable {
  readonly all: readonly TrialDirectory[];
}

/**
 * One of each file system, of its own. Where they cannot be mounted (no root, no loop devices, no tools): a plain directory, loudly;
 * with `DOWNFOLD_REQUIRE_LOOP=1` that is an error.
 */
export async function everyFileSystem(): Promise<TrialDirectories> {
  await using open = new AsyncDisposableStack();
  const all: TrialDirectory[] = [];
  try {
    if (process.getuid?.() !== 0) throw new Error('only root can mount');
    for (const kind of LOOP_KINDS) all.push(open.use(await loopDirectory(kind)));
  } catch (cause) {
    if (process.env['DOWNFOLD_REQUIRE_LOOP'] === '1') throw cause;
    const why = `${(cause as Error).message} (Debian: apt-get install e2fsprogs xfsprogs btrfs-progs)`;
    process.stderr.write(`\n*** SKIPPED: ${LOOP_KINDS.join(', ')} of their own: ${why} ***\n\n`);
    await open.disposeAsync();
    return oneDirectory(await plainDirectory());
  }
  const kept = open.move();
  return { all, [Symbol.asyncDispose]: () => kept.disposeAsync() };
}

/** A list of one. */
export function oneDirectory(directory: TrialDirectory): TrialDirectories {
  return { all: [directory], [Symbol.asyncDispose]: () => directory[Symbol.asyncDispose]() };
}

/** A new file system of its own, in a file, mounted through a loop device, which goes with the mount. Needs root. */
async function loopDirectory(kind: LoopKind): Promise<TrialDirectory> {
  const directory = await scratch(kind);
  const [image, path] = [join(directory.path, 'image'), join(directory.path, 'mounted')];
  const guard = startGuard(directory.path, path);
  try {
    await writeFile(image, '');
    await truncate(image, SIZE);
    await mkdir(path);
    const [maker, ...options] = MAKERS[kind];
    await must(maker, [...options, image]);
    await must('mount', ['-t', kind, '-o', 'loop,noatime', image, path]);
  } catch (cause) {
    await guard.dismiss();
    await directory[Symbol.asyncDispose]();
    throw cause;
  }
  return {
    path,
    kind,
    [Symbol.asyncDispose]: async () => {
      await unmount(path);
      await guard.dismiss();
      await directory[Symbol.asyncDispose]();
    },
  };
}

/**
 * A process that unmounts `path` and removes `directory` when this process is gone, however it ended: by a signal, too. Its standard input
 * then ends.
 */
function startGuard(directory: string, path: string): { dismiss(): Promise<void> } {
  const script =
    'read -r word; [ "$word" = dismissed ] || { umount -l "$0"; rm -rf --one-file-system "$1"; }';
  // not of our process group: a Ctrl-C is for us
  const guard = spawn('sh', ['-c', script, path, directory], {
    stdio: ['pipe', 'ignore', 'ignore'],
    detached: true,
  });
  return {
    dismiss: () =>
      new Promise((resolve, reject) => {
        guard.on('error', reject).on('close', () => resolve());
        guard.stdin.end('dismissed\n');
      }),
  };
}

/** A process that was just killed may still hold a file for a moment. */
async function unmount(path: string): Promise<void> {
  for (let attempt = 0; attempt < 50; attempt += 1) {
    if ((await run('umount', [path])).code === 0) return;
    await sleep(100);
  }
  await must('umount', ['--lazy', path]);
}
