import { writeFileSync } from 'node:fs';
import type { Bench, Ended } from './support.ts';

/** What qemu-img and downfold are told alike: two passphrases, by id. */
export const OBJECTS: readonly string[] = ['k1', 'k2'].flatMap((id) => [
  '--object',
  `secret,id=${id},file=${id}`,
]);

/** Passphrases of images, by file; others are not encrypted. */
export type Keys = Readonly<Record<string, 'k1' | 'k2'>>;

/** Writes the files that hold the passphrases. */
export function writeKeys(work: Bench): void {
  writeFileSync(work.file('k1'), 'open sesame');
  writeFileSync(work.file('k2'), 'open says me');
}

/** `--secret` for all images of `keys`. */
export function secrets(keys: Keys): readonly string[] {
  return Object.entries(keys).flatMap(([file, key]) => ['--secret', `${file}=${key}`]);
}

/** Makes an image, encrypted if `keys` says so; the fewest iterations: time is not what is tested. */
export function create(work: Bench, keys: Keys, file: string, below: string | null): void {
  const key = keys[file];
  const encrypt = `encrypt.format=luks,encrypt.key-secret=${key},encrypt.iter-time=1`;
  must(
    work.downfold(
      'create',
      ...OBJECTS,
      ...(key === undefined ? [] : ['-o', encrypt]),
      ...(below === null ? [] : ['-b', below, '-F', 'qcow2']),
      file,
      '8M',
    ),
  );
}

/** What a command said, which must have succeeded. */
export function must({ code, stdout, stderr }: Ended): string {
  if (code === 0) return stdout;
  throw new Error(`${code}: ${stdout}${stderr}`);
}

/** QEMU's name of an image with all below it, as they are linked now. */
function named(work: Bench, keys: Keys, file: string): string {
  const told = work.must('qemu-img', 'info', '-U', '--output=json', '--backing-chain', file);
  return (JSON.parse(told) as { filename: string }[])
    .flatMap(({ filename }, depth) => {
      const at = 'backing.'.repeat(depth);
      const key = keys[filename];
      return [
        `${at}driver=qcow2`,
        `${at}file.filename=${filename}`,
        ...(key === undefined ? [] : [`${at}encrypt.key-secret=${key}`]),
      ];
    })
    .join(',');
}

/** Writes as a guest, by QEMU. */
export function write(work: Bench, keys: Keys, file: string, ...writes: readonly string[]): void {
  const commands = writes.flatMap((one) => ['-c', `write ${one}`]);
  work.must('qemu-io', ...OBJECTS, '--image-opts', ...commands, named(work, keys, file));
}

/** A copy of the disk that an image shows, by QEMU. */
export function keep(work: Bench, keys: Keys, file: string, to: string): void {
  const from = named(work, keys, file);
  work.must('qemu-img', 'convert', ...OBJECTS, '--image-opts', from, '-O', 'raw', to);
}

/** @throws Error unless an image shows QEMU what a copy shows, and QEMU's check finds nothing in it */
export function judged(work: Bench, keys: Keys, file: string, copy: string): void {
  const from = named(work, keys, file);
  const raw = `driver=raw,file.filename=${copy}`;
  work.must('qemu-img', 'compare', ...OBJECTS, '--image-opts', from, raw);
  work.must('qemu-img', 'check', ...OBJECTS, '--image-opts', from);
}
