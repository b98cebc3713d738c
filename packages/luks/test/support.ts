import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { outputOf, runTool } from '@downfold/compliance';
import type { Storage } from '@downfold/storage';
import { memoryBackend } from '@downfold/storage-memory';
import { hostOffset } from '@downfold/units';
import type { CipherSpec } from '../src/index.ts';

const found = runTool('qemu-img', ['--version']).status === 0;
if (!found && process.env['DOWNFOLD_REQUIRE_QEMU'] === '1')
  throw new Error('DOWNFOLD_REQUIRE_QEMU=1, but there is no qemu-img: install qemu-utils');

/** Whether QEMU's tools are here to judge. CI requires them. */
export const haveQemu: boolean = found;
/** cryptsetup is a judge as well. CI requires it. */
export const haveCryptsetup: boolean = runTool('cryptsetup', ['--version']).status === 0;
if (!haveCryptsetup && process.env['DOWNFOLD_REQUIRE_QEMU'] === '1')
  throw new Error('DOWNFOLD_REQUIRE_QEMU=1, but there is no cryptsetup: install cryptsetup-bin');

export const passphrase: Uint8Array = new TextEncoder().encode('open sesame');

export const specs: Readonly<Record<string, CipherSpec>> = {
  'aes-256 xts-plain64': { mode: 'xts', keyBytes: 64, iv: 'plain64', ivHash: null },
  'aes-128 xts-plain': { mode: 'xts', keyBytes: 32, iv: 'plain', ivHash: null },
  'aes-256 xts-essiv:sha256': { mode: 'xts', keyBytes: 64, iv: 'essiv', ivHash: 'sha256' },
  'aes-128 cbc-plain64': { mode: 'cbc', keyBytes: 16, iv: 'plain64', ivHash: null },
  'aes-256 cbc-essiv:sha256': { mode: 'cbc', keyBytes: 32, iv: 'essiv', ivHash: 'sha256' },
};

/** A directory that goes when the block ends. */
export function scratch(): Disposable & { path(name: string): string } {
  const directory = mkdtempSync(join(tmpdir(), 'downfold-luks-'));
  return {
    path: (name) => join(directory, name),
    [Symbol.dispose]: () => rmSync(directory, { recursive: true, force: true }),
  };
}

/** What QEMU is to judge: a file with the passphrase, one with random bytes, and where an image of them is to be. Gone when the block ends. */
export function judged(): Disposable &
  Readonly<Record<'key' | 'plain' | 'path', string>> & {
    readonly content: Uint8Array;
  } {
  const directory = scratch();
  const [key, plain, path] = [
    directory.path('key'),
    directory.path('plain'),
    directory.path('image'),
  ];
  const content = randomBytes(1 << 20);
  writeFileSync(key, passphrase);
  writeFileSync(plain, content);
  return { key, plain, path, content, [Symbol.dispose]: () => directory[Symbol.dispose]() };
}

/** Runs a tool; throws with its output when it fails. */
export function run(tool: string, ...args: readonly string[]): string {
  return outputOf(tool, args);
}

/** Open storage that holds `bytes`. */
export async function storageOf(bytes: Uint8Array): Promise<Storage> {
  const storage = await memoryBackend().create('/file', { secret: false });
  await storage.write(hostOffset(0), bytes);
  return storage;
}

/** All bytes of a file. */
export async function bytesIn(storage: Storage): Promise<Uint8Array> {
  const bytes = new Uint8Array(await storage.length());
  await storage.read(hostOffset(0), bytes);
  return bytes;
}

/** QEMU's argument for an image that is encrypted with the secret `s`. */
export const encrypted = (path: string): string => `driver=luks,key-secret=s,file.filename=${path}`;
