import { spawnSync } from 'node:child_process';
import { mkdirSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { have, must } from './process.ts';

/** File systems that share blocks between files. */
export type LoopKind = 'xfs' | 'btrfs';

const MAKERS: Readonly<Record<LoopKind, readonly [string, ...string[]]>> = {
  xfs: ['mkfs.xfs', '-q', '-f'],
  btrfs: ['mkfs.btrfs', '-q', '-f'],
};

/** Bytes; only what is used takes space. */
const SIZE = 40 * 2 ** 30;

/** Why there can be no such file system here; null: there can. */
export function missingFor(kind: LoopKind): string | null {
  if (process.getuid?.() !== 0) return 'only root can mount';
  const [maker] = MAKERS[kind];
  return have(maker) ? null : `${maker} is not installed`;
}

/** A file system of its own in a file in `directory`, unmounted when it goes out of scope. */
export function onLoop(kind: LoopKind, directory: string): { readonly path: string } & Disposable {
  const [image, path] = [join(directory, `${kind}.image`), join(directory, kind)];
  const [maker, ...options] = MAKERS[kind];
  writeFileSync(image, '');
  truncateSync(image, SIZE);
  mkdirSync(path);
  must(maker, [...options, image]);
  must('mount', ['-t', kind, '-o', 'loop,noatime', image, path]);
  return {
    path,
    [Symbol.dispose]: () => {
      // what was killed may still hold a file for a moment
      if (spawnSync('umount', [path]).status !== 0) must('umount', ['--lazy', path]);
      rmSync(image);
    },
  };
}
