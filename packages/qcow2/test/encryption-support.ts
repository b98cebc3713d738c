import { writeFileSync } from 'node:fs';
import { caseContext, comparedInClear, secretObject } from '@downfold/compliance';
import { imageSecret } from '@downfold/image';
import type { ImageEncryption } from '@downfold/luks';
import type { MemoryDisk } from '@downfold/storage-memory';
import { memoryBackend } from '@downfold/storage-memory';
import { type Qcow2, type Qcow2CreateOptions, qcow2 } from '../src/index.ts';
import { changeAt, range, run } from './support.ts';

const text = new TextEncoder();
export const passphrase: Uint8Array = text.encode('open sesame');
export const otherPassphrase: Uint8Array = text.encode('open says me');

/** Encryption with as little work as anybody wants, for tests. */
export const encryption = (secret: Uint8Array = passphrase): ImageEncryption => ({
  secret: imageSecret(secret),
  iterTime: 0,
});

export async function createOn(
  disk: MemoryDisk,
  path: string,
  options: Qcow2CreateOptions,
): Promise<Qcow2> {
  return qcow2.create(await memoryBackend(disk).create(path, { secret: false }), options);
}

export async function openOn(
  disk: MemoryDisk,
  path: string,
  mode: 'read' | 'write',
  secret: Uint8Array | null = passphrase,
  allowLocked = false,
): Promise<Qcow2> {
  const storage = await memoryBackend(disk).open(path, mode);
  return qcow2.open(storage, {
    mode,
    secret: secret === null ? null : imageSecret(secret),
    allowLocked,
  });
}

/** Writes, zeros, deallocations and snapshots at random places; `model` shows what they make of the disk. */
export async function change(image: Qcow2, model: Uint8Array, seed: number): Promise<void> {
  const { bytes, integer } = caseContext(seed);
  for (let turn = 0; turn < 16; turn++) {
    const at = integer(model.length - 70_000);
    const length = 1 + integer(70_000);
    await changeAt(image, model, turn, range(at, length), bytes);
    if (turn === 7) await image.snapshots.create({ name: 'seven', date: '2026-11-30T00:00:00Z' });
    if (turn % 5 === 4) await image.flush();
  }
  await image.flush();
}

/** QEMU's argument for an image that is encrypted with the secret `s`. */
export const encrypted = (path: string): string =>
  `driver=qcow2,encrypt.key-secret=s,file.filename=${path}`;

/** @throws Error unless QEMU, with the passphrase, sees `view` on the disk of an image, and finds nothing wrong in it. */
export function judgedByQemu(
  path: string,
  view: Uint8Array,
  secret: Uint8Array = passphrase,
): void {
  const [key, raw] = [`${path}.key`, `${path}.view`];
  writeFileSync(key, secret);
  writeFileSync(raw, view);
  run('qemu-img', ...comparedInClear(key, encrypted(path), raw));
  run('qemu-img', 'check', ...secretObject(key), '--image-opts', encrypted(path));
}
