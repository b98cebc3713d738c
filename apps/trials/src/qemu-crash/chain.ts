import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { MemoryDisk } from '@downfold/storage-memory';
import { type Draw, draw } from '../tools/draw.ts';
import { must } from '../tools/process.ts';
import { qemuIo } from '../tools/qemu.ts';

/** The images of every chain here, bottom first: `[base] <-- [mid] <-- [top] <-- [active]`. */
export const IMAGES = ['base', 'mid', 'top', 'active'] as const;
/** Where they lie on a memory disk. */
export const DIRECTORY = '/chain';

const CLUSTER = 64 << 10;
const CLUSTERS = 128;

/** File name of an image of the chain. */
export function fileOf(name: string): string {
  return `${name}.qcow2`;
}

/** Path of an image of the chain on a memory disk. */
export function pathOf(name: string): string {
  return join(DIRECTORY, fileOf(name));
}

/** A cluster of active, and the byte it is filled with: what a guest may write again without changing what it reads. */
export interface OwnCluster {
  readonly offset: number;
  readonly length: number;
  readonly byte: number;
}

/**
 * Makes a chain of 8 MiB disks with QEMU's own tools and default clusters of 64 KiB, in an empty directory; no two runs of
 * clusters alike. Base lacks clusters that mid or top hold: a commit must allocate. The same seed makes the same chain.
 */
export async function makeChain(directory: string, seed: number): Promise<OwnCluster> {
  const from = draw(seed);
  let byte = 0;
  let own: OwnCluster | null = null;
  for (const [index, name] of IMAGES.entries()) {
    const below = IMAGES[index - 1];
    const onto = below === undefined ? [] : ['-b', fileOf(below), '-F', 'qcow2'];
    const size = String(CLUSTERS * CLUSTER);
    const args = ['create', '-q', '-f', 'qcow2', ...onto, fileOf(name), size];
    await must('qemu-img', args, { cwd: directory });
    const writes = runsOf(from, index).map(([first, count]) => {
      byte += 1;
      const [offset, length] = [first * CLUSTER, count * CLUSTER];
      own = { offset, length: CLUSTER, byte };
      return `write -q -P ${byte} ${offset} ${length}`;
    });
    await qemuIo(fileOf(name), 'qcow2', writes, { cwd: directory });
  }
  if (own === null) throw new Error('a chain without data');
  return own;
}

/** Runs of clusters that the image at `index` of the chain holds. Base stays in the lower half of the disk. */
function runsOf(from: Draw, index: number): readonly (readonly [first: number, count: number])[] {
  const end = index === 0 ? CLUSTERS / 2 : CLUSTERS;
  const runs: [number, number][] = [];
  for (let left = from.between(2, 3); left > 0; left--)
    runs.push([from.integer(end - 8), from.between(1, 8)]);
  // one in the upper half: base does not have it
  if (index > 0) runs.push([CLUSTERS / 2 + 12 * index, from.between(1, 4)]);
  return runs;
}

/** The files of a chain as a memory disk. */
export async function loadChain(directory: string): Promise<MemoryDisk> {
  const disk = new MemoryDisk();
  disk.makeDirectory(DIRECTORY);
  for (const name of IMAGES) {
    const bytes = await readFile(join(directory, fileOf(name)));
    disk.fileOf(disk.create(pathOf(name))).write(0, bytes);
  }
  return disk;
}
