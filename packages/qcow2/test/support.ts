import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { outputOf, runTool } from '@downfold/compliance';
import type { CowSource, Image } from '@downfold/image';
import { type MemoryDisk, memoryBackend } from '@downfold/storage-memory';
import {
  byteLength,
  type GuestOffset,
  type GuestRange,
  guestOffset,
  hostOffset,
} from '@downfold/units';
import { type Qcow2, qcow2 } from '../src/index.ts';

const found = runTool('qemu-img', ['--version']).status === 0;
if (!found && process.env['DOWNFOLD_REQUIRE_QEMU'] === '1')
  throw new Error('DOWNFOLD_REQUIRE_QEMU=1, but there is no qemu-img: install qemu-utils');
if (!found) console.warn('NO qemu-img: the foreign judge is absent, its tests are skipped');

/** Whether QEMU's tools are here to judge. CI requires them. */
export const haveQemu: boolean = found;

/** Seeds 1 to `count`, or the one in DOWNFOLD_SEED. */
export function seeds(count: number): readonly number[] {
  const only = process.env['DOWNFOLD_SEED'];
  return only === undefined
    ? Array.from({ length: count }, (_, index) => index + 1)
    : [Number(only)];
}

/** A directory that goes when the block ends. */
export function scratch(): Disposable & { path(name: string): string } {
  const directory = mkdtempSync(join(tmpdir(), 'downfold-qcow2-'));
  return {
    path: (name) => join(directory, name),
    [Symbol.dispose]: () => rmSync(directory, { recursive: true, force: true }),
  };
}

/** Runs a tool; throws with its output when it fails. */
export function run(tool: string, ...args: readonly string[]): string {
  return outputOf(tool, args);
}

/** Runs a tool that may fail. Returns its exit code and what it wrote to stdout. */
export function attempt(
  tool: string,
  ...args: readonly string[]
): { status: number; stdout: string } {
  const { status, stdout } = runTool(tool, args);
  return { status: status ?? -1, stdout };
}

/** `qemu-img check --output=json`, whatever its exit code. */
export function qemuCheck(path: string): Record<string, number> {
  const { stdout } = attempt('qemu-img', 'check', '--output=json', '-f', 'qcow2', path);
  return JSON.parse(stdout) as Record<string, number>;
}

/** @throws AssertionError unless `qemu-img check` finds neither errors nor leaks */
export function soundByQemu(path: string): void {
  const check = qemuCheck(path);
  const found = [check['corruptions'] ?? 0, check['leaks'] ?? 0, check['check-errors']];
  assert.deepEqual(found, [0, 0, 0], `corruptions, leaks and errors of ${path}`);
}

/** @throws Error unless QEMU sees `view` on the disk of a qcow2 image. */
export function sameByQemu(path: string, view: Uint8Array): void {
  const raw = `${path}.view`;
  writeFileSync(raw, view);
  run('qemu-img', 'compare', '-f', 'qcow2', '-F', 'raw', path, raw);
}

/** Writes a file of a memory disk to a real file. */
export function dump(disk: MemoryDisk, name: string, path: string): void {
  writeFileSync(path, bytesOn(disk, name));
}

/** All bytes of a file of a memory disk. */
export function bytesOn(disk: MemoryDisk, name: string): Uint8Array {
  const file = disk.fileOf(disk.inodeOf(name));
  const bytes = new Uint8Array(file.length);
  file.read(0, bytes);
  return bytes;
}

/** Puts a real file onto a memory disk. */
export async function load(disk: MemoryDisk, name: string, path: string): Promise<void> {
  await using storage = await memoryBackend(disk).create(name, { secret: false });
  await storage.write(hostOffset(0), readFileSync(path));
}

/** Opens an image of a memory disk. */
export async function openOn(
  disk: MemoryDisk,
  name: string,
  mode: 'read' | 'write',
): Promise<Qcow2> {
  return qcow2.open(await memoryBackend(disk).open(name, mode), { mode });
}

/** The whole disk of an image. */
export async function readAll(image: Image, below: CowSource | null = null): Promise<Uint8Array> {
  const bytes = new Uint8Array(image.geometry.virtualSize);
  await image.read(guestOffset(0), bytes, below);
  return bytes;
}

/** A backing file's view from plain bytes: zeros past its end. */
export function belowOf(bytes: Uint8Array): CowSource {
  return async (offset: GuestOffset, target) => {
    const part = bytes.subarray(offset, offset + target.length);
    target.set(part);
    target.fill(0, part.length);
  };
}

/** A guest range. */
export function range(offset: number, length: number): GuestRange {
  return { offset: guestOffset(offset), length: byteLength(length) };
}

/** Makes [offset, offset + length) zeros, deallocates it, or writes it, as it is `turn`'s turn; `model` shows what that makes of the disk. */
export async function changeAt(
  image: Image,
  model: Uint8Array,
  turn: number,
  { offset: at, length }: GuestRange,
  bytes: (length: number) => Uint8Array,
): Promise<void> {
  if (turn % 4 === 1) {
    await image.writeZeroes(range(at, length), { fill: null });
    model.fill(0, at, at + length);
  } else if (turn % 4 === 3) {
    await image.deallocate(range(at, length));
    const unit = image.geometry.allocationGranularity;
    const [from, to] = [Math.ceil(at / unit) * unit, Math.floor((at + length) / unit) * unit];
    if (to > from) model.fill(0, from, to);
  } else {
    const source = bytes(length);
    await image.write(at, source, { fill: null });
    model.set(source, at);
  }
}
