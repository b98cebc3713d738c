import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { defaultPolicy, openChain, viewOf } from '@downfold/chain';
import { qcow2 } from '@downfold/qcow2';
import { type MemoryDisk, memoryBackend } from '@downfold/storage-memory';
import { DownfoldError, guestOffset } from '@downfold/units';
import { run } from '../tools/process.ts';
import { fileOf, IMAGES, pathOf } from './chain.ts';

/** What active reads as on a disk, by Downfold's reader; null: it cannot be read. */
export async function activeView(disk: MemoryDisk): Promise<Buffer | null> {
  const environment = {
    backend: memoryBackend(disk),
    formats: [qcow2],
    // marked or not: it is asked what active reads as
    policy: { ...defaultPolicy, allowMarked: true },
  };
  try {
    await using chain = await openChain(pathOf('active'), 'qcow2', environment);
    const { layers } = chain;
    const leaf = layers.length - 1;
    const view = Buffer.alloc(layers[leaf]?.image.geometry.virtualSize ?? 0);
    await viewOf(layers, leaf)(guestOffset(0), view);
    return view;
  } catch (cause) {
    if (cause instanceof DownfoldError) return null;
    throw cause;
  }
}

/** Whether active reads as `before` by QEMU's own reader, which looks at the disk's files in `directory`. */
export async function readsBeforeByQemu(
  disk: MemoryDisk,
  before: Buffer,
  directory: string,
): Promise<boolean> {
  await mkdir(directory, { recursive: true });
  for (const name of IMAGES) {
    const file = disk.fileOf(disk.inodeOf(pathOf(name)));
    const bytes = Buffer.alloc(file.length);
    file.read(0, bytes);
    await writeFile(join(directory, fileOf(name)), bytes);
  }
  const raw = join(directory, 'before.raw');
  await writeFile(raw, before);
  const active = join(directory, fileOf('active'));
  const ended = await run('qemu-img', ['compare', '-U', '-f', 'qcow2', '-F', 'raw', active, raw]);
  return ended.code === 0;
}
