import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { qcow2 } from '@downfold/qcow2';
import { MemoryDisk, memoryBackend } from '@downfold/storage-memory';
import { DownfoldError, guestOffset } from '@downfold/units';
import { run } from '../tools/process.ts';

/** What is made of an image. */
export interface Verdict {
  /** Opened for reading, and its start read. */
  readonly read: 'reads' | 'refuses';
  /** Opened for writing, and closed. */
  readonly write: 'opens' | 'refuses';
  /** As the exit code of `qemu-img check`: 0 clean, 1 cannot be checked, 2 corruptions, 3 leaks. */
  readonly check: number;
}

/** What is read: the start of the disk, which all cases have. Bytes. */
const START = 8192;
const PATH = '/image';

/** Downfold's verdict; nothing lies below the image. @throws what is no DownfoldError */
export async function verdictOfDownfold(bytes: Uint8Array): Promise<Verdict> {
  const fresh = (): ReturnType<typeof memoryBackend> => {
    const disk = new MemoryDisk();
    disk.fileOf(disk.create(PATH)).write(0, bytes);
    return memoryBackend(disk);
  };
  const read = await accepted(async () => {
    await using image = await qcow2.open(await fresh().open(PATH, 'read'), { mode: 'read' });
    const length = Math.min(START, image.geometry.virtualSize);
    await image.read(guestOffset(0), new Uint8Array(length), null);
  });
  const write = await accepted(async () => {
    await using _ = await qcow2.open(await fresh().open(PATH, 'write'), { mode: 'write' });
  });
  let check = 1;
  await accepted(async () => {
    await using image = await qcow2.open(await fresh().open(PATH, 'read'), { mode: 'read' });
    const { corruptions, leaks } = await image.check();
    check = corruptions > 0 ? 2 : leaks > 0 ? 3 : 0;
  });
  return { read: read ? 'reads' : 'refuses', write: write ? 'opens' : 'refuses', check };
}

async function accepted(work: () => Promise<void>): Promise<boolean> {
  try {
    await work();
    return true;
  } catch (cause) {
    if (!(cause instanceof DownfoldError)) throw cause;
    return false;
  }
}

/** QEMU's verdict, on files in `directory`; nothing lies below the image. */
export async function verdictOfQemu(bytes: Uint8Array, directory: string): Promise<Verdict> {
  const path = join(directory, 'image.qcow2');
  const name = `json:${JSON.stringify({ driver: 'qcow2', file: { driver: 'file', filename: path }, backing: null })}`;
  await writeFile(path, bytes);
  const read = await run('qemu-io', ['-r', '-c', readOf(bytes), name], LIMIT);
  const check = await run('qemu-img', ['check', '-q', name], LIMIT);
  const write = await run('qemu-io', ['-c', 'length', name], LIMIT);
  return {
    read: read.code === 0 ? 'reads' : 'refuses',
    write: write.code === 0 ? 'opens' : 'refuses',
    check: check.code ?? -1,
  };
}

/** The command of `qemu-io` that reads the start of the disk, however short that is. */
function readOf(bytes: Uint8Array): string {
  const size =
    bytes.length < 32 ? 0n : new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(24);
  const length = size < BigInt(START) ? Number(size) - (Number(size) % 512) : START;
  return length === 0 ? 'length' : `read 0 ${length}`;
}

const LIMIT = { timeout: 20_000 };
