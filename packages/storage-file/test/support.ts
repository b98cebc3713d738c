import { execFileSync, spawnSync } from 'node:child_process';
import { fstatSync, readSync, realpathSync, writeSync } from 'node:fs';
import fs from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { SubjectFactory } from '@downfold/compliance';
import { type BackendDriver, openBackend } from '@downfold/storage';
import type { StorageAbility, StorageSubject } from '@downfold/storage/compliance';
import { faulty } from '@downfold/storage/faults';
import { nodeCalls } from '../src/index.ts';

/** An empty directory of the real file system, its links resolved; it goes when the block ends. */
export async function scratch(): Promise<AsyncDisposable & { readonly path: string }> {
  const path = realpathSync(await fs.mkdtemp(join(tmpdir(), 'downfold-storage-')));
  return {
    path,
    [Symbol.asyncDispose]: () => fs.rm(path, { recursive: true, force: true }),
  };
}

const ABILITIES: ReadonlySet<StorageAbility> = new Set<StorageAbility>([
  'names',
  'write',
  'grow',
  'modified',
  'allocated',
  'resize',
  'locks',
  'sparse',
  'links',
  'special-files',
  'permissions',
  'flush-fault',
]);

/** Subjects of the storage kit in scratch directories; faults of flushes are injected around the driver. */
export function fileSubjects(
  makeDriver: () => BackendDriver,
  { holes }: { readonly holes: boolean } = { holes: nodeCalls.punchHole !== null },
): SubjectFactory<StorageSubject & AsyncDisposable, StorageAbility> {
  return {
    abilities: holes ? new Set([...ABILITIES, 'discard', 'holes'] as const) : ABILITIES,
    create: async () => {
      const directory = await scratch();
      const driver = faulty(makeDriver());
      return {
        backend: openBackend(driver),
        directory: directory.path,
        hooks: {
          link: (existing, path) => fs.link(existing, path),
          symbolicLink: (target, path) => fs.symlink(target, path),
          makeSpecial: async (path) => void execFileSync('mkfifo', [path]),
          othersMayRead: async (path) => ((await fs.stat(path)).mode & 0o044) !== 0,
          failNextFlush: () => driver.inject({ operation: 'flush' }),
        },
        [Symbol.asyncDispose]: () => directory[Symbol.asyncDispose](),
      };
    },
  };
}

/**
 * `Calls.shareBlocks` of a file system that can, as far as bytes and refusals go: it takes whole blocks, or up to the end of the source,
 * and refuses what reaches past that.
 */
export function sharesByCopying(
  source: number,
  from: number,
  target: number,
  to: number,
  length: number,
): void {
  const { size } = fstatSync(source);
  const isWhole = (at: number): boolean => at % 4096 === 0;
  if (!isWhole(from) || !isWhole(to) || !isWhole(length) || from + length > size)
    throw systemError('EINVAL');
  const bytes = Buffer.alloc(length);
  readSync(source, bytes, 0, length, from);
  writeSync(target, bytes, 0, length, to);
}

/** A system call's error as Node throws it. */
export function systemError(code: string): NodeJS.ErrnoException {
  return Object.assign(new Error(`${code}: injected`), { code });
}

const found = spawnSync('qemu-img', ['--version']).status === 0;
if (!found && process.env['DOWNFOLD_REQUIRE_QEMU'] === '1')
  throw new Error('DOWNFOLD_REQUIRE_QEMU=1, but there is no qemu-img: install qemu-utils');
if (!found) console.warn('NO qemu-img: whether QEMU and we exclude each other is not tested');

/** Whether QEMU's tools are here to judge. CI requires them. */
export const haveQemu: boolean = found;
