import { readFileSync, writeFileSync } from 'node:fs';
import { caseContext } from '@downfold/compliance';
import { MemoryDisk, memoryBackend } from '@downfold/storage-memory';
import { byteLength } from '@downfold/units';
import { type Qcow2CreateOptions, qcow2 } from '../src/index.ts';
import { attempt, load, run } from './support.ts';

const KIB = 1024;

/** A random image on a disk in memory, and what QEMU read in it before anything else happened. */
export interface RandomImage {
  readonly disk: MemoryDisk;
  readonly options: Qcow2CreateOptions & { readonly clusterSize: number };
  /** Content of the backing file, `below.raw`; null: there is none. */
  readonly below: Uint8Array | null;
  /** What the disk shows. */
  readonly view: Uint8Array;
  /** What each internal snapshot shows. */
  readonly snapshots: ReadonlyMap<string, Uint8Array>;
}

/** Random options, with clusters of 512 bytes to 2 MiB. */
function randomOptions(seed: number): RandomImage['options'] {
  const { integer, random } = caseContext(seed);
  const version = random() < 0.25 ? 2 : 3;
  const extendedL2 = version === 3 && random() < 0.35;
  const large = random() < 0.15;
  const clusterSize = extendedL2
    ? 2 ** (large ? 20 + integer(2) : 14 + integer(3))
    : 2 ** (large ? 17 + integer(5) : 9 + integer(8));
  const clusters = clusterSize > 64 * KIB ? 4 : 80;
  const virtualSize = 512 * (1 + integer(Math.min(8 << 20, clusterSize * clusters) / 512));
  return {
    version,
    extendedL2,
    clusterSize,
    virtualSize: byteLength(virtualSize),
    refcountBits: version === 2 ? 16 : 2 ** integer(7),
    compression: version === 3 && random() < 0.3 ? 'zstd' : 'deflate',
    backing: random() < 0.6 ? { name: 'below.raw', format: 'raw' } : null,
  };
}

/** Bytes that repeat after 64 KiB: random enough, and quick to make. */
export function noise(seed: number, length: number): Uint8Array {
  const tile = caseContext(seed).bytes(Math.min(length, 64 * KIB));
  const bytes = new Uint8Array(length);
  for (let at = 0; at < length; at += tile.length) bytes.set(tile.subarray(0, length - at), at);
  return bytes;
}

/** Makes an image; half of them are QEMU's, with compressed clusters, zeros, discards and snapshots. `path` names scratch files. */
export async function randomImage(
  seed: number,
  path: (name: string) => string,
): Promise<RandomImage> {
  const options = randomOptions(seed);
  const { integer, random } = caseContext(seed * 17);
  const sectors = options.virtualSize / 512;
  const below =
    options.backing == null ? null : noise(seed, 512 * (1 + integer(Math.ceil(sectors * 1.2))));
  writeFileSync(path('below.raw'), below ?? new Uint8Array());
  const disk = new MemoryDisk();
  if (random() < 0.5) {
    const view = new Uint8Array(options.virtualSize);
    view.set((below ?? view).subarray(0, view.length));
    const storage = await memoryBackend(disk).create('/image', { secret: false });
    await using _ = await qcow2.create(storage, options);
    return { disk, options, below, view, snapshots: new Map() };
  }
  const names = makeByQemu(seed, options, path('image.qcow2'), path('below.raw'));
  await load(disk, '/image', path('image.qcow2'));
  const snapshots = new Map(names.map((name) => [name, snapshotOf(name, path)]));
  return { disk, options, below, view: viewOf(path), snapshots };
}

/** Creates the image and changes it at random; returns the names of its snapshots. */
function makeByQemu(
  seed: number,
  {
    version,
    extendedL2,
    clusterSize,
    virtualSize,
    refcountBits,
    compression,
    backing,
  }: RandomImage['options'],
  image: string,
  below: string,
): readonly string[] {
  const { integer, random } = caseContext(seed * 23);
  const text = [
    `cluster_size=${clusterSize}`,
    ...(version === 2
      ? ['compat=0.10']
      : [
          `refcount_bits=${refcountBits}`,
          `extended_l2=${extendedL2 ? 'on' : 'off'}`,
          `compression_type=${compression === 'zstd' ? 'zstd' : 'zlib'}`,
        ]),
  ].join(',');
  const chain = backing == null ? [] : ['-b', below, '-F', 'raw'];
  run('qemu-img', 'create', '-q', '-f', 'qcow2', '-o', text, ...chain, image, String(virtualSize));
  const names: string[] = [];
  for (let round = 0; round < 3; round++) {
    const commands: string[] = [];
    for (let step = 0; step < 6; step++) {
      const pattern = 1 + integer(255);
      const cluster = integer(Math.ceil(virtualSize / clusterSize)) * clusterSize;
      const at = 512 * integer(virtualSize / 512);
      const length = 512 * (1 + integer(Math.min(virtualSize - at, 3 * clusterSize) / 512));
      const kind = random();
      if (kind < 0.35)
        commands.push(`write -P ${pattern} ${at} ${Math.min(length, virtualSize - at)}`);
      // one shared reference is too many for refcounts of one bit
      else if (kind < 0.7 && (refcountBits ?? 16) >= 8)
        commands.push(
          `write -c -P ${pattern} ${cluster} ${Math.min(clusterSize, virtualSize - cluster)}`,
        );
      else if (kind < 0.85)
        commands.push(
          `write -z${random() < 0.5 ? 'u' : ''} ${at} ${Math.min(length, virtualSize - at)}`,
        );
      else commands.push(`discard ${at} ${Math.min(length, virtualSize - at)}`);
    }
    // it refuses to compress into a cluster that has data, and goes on
    attempt('qemu-io', '-f', 'qcow2', ...commands.flatMap((command) => ['-c', command]), image);
    if ((refcountBits ?? 16) > 2 && random() < 0.3) {
      names.push(`s${round}`);
      run('qemu-img', 'snapshot', '-c', `s${round}`, image);
    }
  }
  return names;
}

/** What QEMU reads in `image.qcow2`. */
export function viewOf(path: (name: string) => string): Uint8Array {
  run('qemu-img', 'convert', '-f', 'qcow2', '-O', 'raw', path('image.qcow2'), path('view.raw'));
  return readFileSync(path('view.raw'));
}

/** What QEMU reads in a snapshot of `image.qcow2`. */
export function snapshotOf(name: string, path: (name: string) => string): Uint8Array {
  const convert = ['convert', '-l', name, '-f', 'qcow2', '-O', 'raw'];
  run('qemu-img', ...convert, path('image.qcow2'), path('view.raw'));
  return readFileSync(path('view.raw'));
}
