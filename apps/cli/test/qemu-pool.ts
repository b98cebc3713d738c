import { statSync } from 'node:fs';
import { type Bench, bench } from './support.ts';

/** One image that QEMU's tools make. */
export interface ImageSpec {
  readonly name: string;
  readonly size: string;
  /** As it stands in the header. */
  readonly backing?: string;
  readonly format?: 'qcow2' | 'raw';
  /** `-o` of `qemu-img create`. */
  readonly options?: string;
  /** Commands of qemu-io. */
  readonly io?: readonly string[];
}

/** Images made once by QEMU's tools; tests work on copies, and QEMU says what became of them. */
export interface Pool extends Disposable {
  /** The images as they were made. */
  readonly origin: Bench;
  /** A directory with a copy of each image, which goes when the block ends. */
  copy(): Bench;
  /** What `qemu-img compare` says of an image of a copy beside what `was` (default: the same) was at first. */
  compare(work: Bench, name: string, was?: string): string;
}

/** What `Pool.compare` says of disks that show the same; past the end of a shorter one there are zeros. */
export const IDENTICAL = 'Images are identical.\n';
const SIZES_DIFFER = 'Warning: Image size mismatch!\n';

/** Makes images, backing files before their overlays. */
export function makePool(images: readonly ImageSpec[]): Pool {
  const origin = bench();
  for (const image of images) makeImage(origin, image, images);
  const formatOf = (name: string): string =>
    images.find((image) => image.name === name)?.format ?? 'qcow2';
  return {
    origin,
    copy: () => {
      const work = bench();
      work.must('cp', '-a', '--sparse=always', `${origin.path}/.`, '.');
      return work;
    },
    compare: (work, name, was = name) => {
      const formats = ['-f', formatOf(name), '-F', formatOf(was)];
      const { stdout, stderr } = work.run(
        'qemu-img',
        'compare',
        ...formats,
        name,
        origin.file(was),
      );
      return (stdout + stderr).replace(SIZES_DIFFER, '');
    },
    [Symbol.dispose]: () => origin[Symbol.dispose](),
  };
}

function makeImage(
  work: Bench,
  { name, size, backing, format = 'qcow2', options, io = [] }: ImageSpec,
  images: readonly ImageSpec[],
): void {
  const below = images.find((image) => image.name === backing)?.format ?? 'qcow2';
  work.must(
    'qemu-img',
    'create',
    '-q',
    ...['-f', format],
    ...(options === undefined ? [] : ['-o', options]),
    ...(backing === undefined ? [] : ['-b', backing, '-F', below]),
    name,
    size,
  );
  if (io.length > 0) work.must('qemu-io', '-f', format, ...io.flatMap((one) => ['-c', one]), name);
}

/** What `qemu-img check` says of qcow2 images that is more than nothing: errors and leaks, by name. */
export function complaints(work: Bench, ...names: readonly string[]): readonly string[] {
  return names.flatMap((name) => {
    const { code, stdout, stderr } = work.run('qemu-img', 'check', '-f', 'qcow2', name);
    return code === 0 ? [] : [`${name}: ${stdout}${stderr}`];
  });
}

/** Backing file and its format, as qemu-img finds them in the header: `base.qcow2 (qcow2)`, or `none`. */
export function backingIn(work: Bench, name: string): string {
  const info = JSON.parse(
    work.must('qemu-img', 'info', '-f', 'qcow2', '--output=json', name),
  ) as Readonly<Record<string, string | undefined>>;
  const backing = info['backing-filename'];
  return backing === undefined ? 'none' : `${backing} (${info['backing-filename-format']})`;
}

/** State of the mark of an image, as `downfold info` shows it; null: none. */
export function markOf(work: Bench, name: string, format = 'qcow2'): string | null {
  const info = work.json<{ 'x-mark'?: { state: string } }>('info', '-f', format, name);
  return info['x-mark']?.state ?? null;
}

/** Bytes of host space in use. */
export function hostBytes(work: Bench, name: string): number {
  return 512 * statSync(work.file(name)).blocks;
}

/** SHA-256 of every file in the directory and below, by name. */
export function hashes(work: Bench): readonly string[] {
  const list = 'find . -type f -print0 | sort -z | xargs -0 sha256sum';
  return work.must('sh', '-c', list).trimEnd().split('\n');
}

/** What a persistent bitmap of a qcow2 image says is dirty, as `qemu-nbd` exports it and `nbdinfo` reads it. */
export function dirtyBytes(work: Bench, name: string, bitmap: string): unknown {
  const map = work.must(
    'nbdinfo',
    '--json',
    `--map=qemu:dirty-bitmap:${bitmap}`,
    '--',
    '[',
    'qemu-nbd',
    '-r',
    '-f',
    'qcow2',
    '-B',
    bitmap,
    name,
    ']',
  );
  return (JSON.parse(map) as { readonly type: number }[]).filter(({ type }) => type !== 0);
}
