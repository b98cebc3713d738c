import {
  closeSync,
  copyFileSync,
  mkdirSync,
  openSync,
  readSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { basename, join } from 'node:path';
import { seededRandom } from '@downfold/compliance';
import { must } from './process.ts';

const MIB = 1 << 20;
const CLUSTER = 65536;
const SMALL = 4096;

/** How the data of top lies on its disk, and what its images are. */
export type Shape =
  | 'sequential'
  | 'scattered'
  | 'subclusters'
  | 'small clusters'
  | 'zeroes'
  | 'zlib'
  | 'zstd'
  | 'deep';

/** base <- ... <- top, made once, put back before every run. */
export interface BenchChain {
  readonly directory: string;
  /** Base first. */
  readonly layers: readonly string[];
  readonly base: string;
  readonly top: string;
  /** What top read as, raw. */
  readonly topView: string;
  /** Whole images as they were: base, and whatever else a run may change beyond its first cluster. */
  readonly copies: ReadonlyMap<string, string>;
  /** First clusters of the others: Downfold relinks top and marks what lies between, so they are put back too. */
  readonly heads: ReadonlyMap<string, Buffer>;
}

/** What is special about a chain. */
interface Recipe {
  /** Mebibytes of the disk for each mebibyte of data in top. */
  readonly space: number;
  /** Options of `qemu-img create` for every image. */
  readonly options: readonly string[];
  readonly layers: number;
  /** `qemu-io` commands for the layer `index` (1: the first above base) of `count`. */
  commands(of: LayerRequest): readonly string[];
}

interface LayerRequest {
  readonly index: number;
  readonly count: number;
  /** Mebibytes of data in top; of the disk. */
  readonly mebibytes: number;
  readonly virtual: number;
  readonly random: () => number;
}

const isTop = ({ index, count }: LayerRequest): boolean => index === count - 1;

/** Below top: random clusters of 64 KiB, a quarter of what top holds. */
const middle = ({ mebibytes, virtual, random }: LayerRequest): readonly string[] =>
  pick(Math.ceil((mebibytes * 16) / 64), virtual * 16, CLUSTER, random);

const inOnePiece = (mebibytes: number, how: (offset: number, length: number) => string) =>
  Array.from({ length: Math.ceil(mebibytes / 2) }, (_, index) => how(index * 2 * MIB, 2 * MIB));

const SCATTERED: Recipe = {
  space: 2,
  options: [],
  layers: 3,
  commands: (of) =>
    isTop(of) ? pick(of.mebibytes * 16, of.virtual * 16, CLUSTER, of.random) : middle(of),
};

const SMALL_WRITES: Recipe = {
  ...SCATTERED,
  commands: (of) =>
    isTop(of) ? pick(of.mebibytes * 256, of.virtual * 256, SMALL, of.random) : middle(of),
};

const SEQUENTIAL: Recipe = {
  space: 1,
  options: [],
  layers: 3,
  commands: (of) => (isTop(of) ? inOnePiece(of.mebibytes, piece) : middle(of)),
};

const RECIPES: Readonly<Record<Shape, Recipe>> = {
  sequential: SEQUENTIAL,
  scattered: SCATTERED,
  subclusters: { ...SMALL_WRITES, options: ['-o', 'extended_l2=on,cluster_size=128k'] },
  'small clusters': { ...SMALL_WRITES, options: ['-o', 'cluster_size=4k'] },
  zeroes: {
    ...SEQUENTIAL,
    commands: (of) =>
      isTop(of)
        ? inOnePiece(of.mebibytes, (offset, length) => `write -q -z ${offset} ${length}`)
        : middle(of),
  },
  // written plainly, then top is compressed as a whole
  zlib: SEQUENTIAL,
  zstd: SEQUENTIAL,
  deep: {
    space: 2,
    options: [],
    layers: 33,
    commands: (of) => pick((of.mebibytes * 16) / 32, of.virtual * 16, CLUSTER, of.random),
  },
};

/**
 * A chain above whose base lie `mebibytes` MiB of data. Half of what is committed is allocated in base already, half is new there.
 * Fixed seeds.
 * @param parent a directory, which gets two: one for the images, one for copies
 * @param whole which images a run may change anywhere, not only in their first cluster
 */
export function makeChain(
  parent: string,
  shape: Shape,
  mebibytes: number,
  whole: 'base' | 'all' = 'base',
): BenchChain {
  // copies lie elsewhere: beside the images they would be overlays that a commit must not ruin
  const [directory, copies] = ['images', 'copies'].map((name) => join(parent, name)) as [
    string,
    string,
  ];
  for (const made of [directory, copies]) mkdirSync(made, { mode: 0o700 });
  const { space, options, layers: count, commands } = RECIPES[shape];
  const path = (name: string): string => join(directory, name);
  const random = seededRandom(shape === 'sequential' ? 1 : 2);
  writeFileSync(path('pattern'), pattern(random, isCompressed(shape)));
  const virtual = mebibytes * space;
  const layers = Array.from({ length: count }, (_, index) => nameOf(index, count));
  for (const [index, name] of layers.entries()) {
    const below = layers[index - 1];
    const onto = below === undefined ? [] : ['-b', below, '-F', 'qcow2'];
    const create = ['create', '-q', '-f', 'qcow2', ...options, ...onto, name, `${virtual}M`];
    must('qemu-img', create, directory);
    const request = { index, count, mebibytes, virtual, random };
    write(directory, name, index === 0 ? alternate(virtual) : commands(request));
  }
  if (isCompressed(shape)) compress(directory, layers, shape);
  const top = nameOf(count - 1, count);
  must('qemu-img', ['convert', '-f', 'qcow2', '-O', 'raw', top, 'top.raw'], directory);
  const saved = whole === 'all' ? layers : layers.slice(0, 1);
  const others = layers.filter((name) => !saved.includes(name));
  for (const name of saved) copyFileSync(path(name), join(copies, name));
  return {
    directory,
    layers: layers.map(path),
    base: path('base.qcow2'),
    top: path(top),
    topView: path('top.raw'),
    copies: new Map(saved.map((name) => [path(name), join(copies, name)])),
    heads: new Map(others.map((name) => [path(name), head(path(name))])),
  };
}

const isCompressed = (shape: Shape): shape is 'zlib' | 'zstd' =>
  shape === 'zlib' || shape === 'zstd';

function nameOf(index: number, count: number): string {
  if (index === 0) return 'base.qcow2';
  return index === count - 1 ? 'top.qcow2' : count === 3 ? 'mid.qcow2' : `mid${index}.qcow2`;
}

/** Random bytes, of which, when they are to be compressed, one in two is a blank. */
function pattern(random: () => number, compressible: boolean): Buffer {
  const length = 65_521;
  const byte = (_: unknown, index: number): number =>
    compressible && (index & 64) === 0 ? 32 : random() * 256;
  return Buffer.from(Uint8Array.from({ length }, byte));
}

/** Top as `qemu-img convert -c` writes it. */
function compress(directory: string, layers: readonly string[], type: 'zlib' | 'zstd'): void {
  const top = layers.at(-1) as string;
  const below = basename(layers.at(-2) as string);
  const options = ['-o', `compression_type=${type}`];
  must('qemu-img', ['convert', '-c', '-O', 'qcow2', ...options, top, 'packed.qcow2'], directory);
  must('mv', ['packed.qcow2', top], directory);
  must('qemu-img', ['rebase', '-u', '-f', 'qcow2', '-b', below, '-F', 'qcow2', top], directory);
}

const piece = (offset: number, length: number): string => `write -q -s pattern ${offset} ${length}`;

/** One MiB in two, over the whole disk. */
function alternate(virtualMebibytes: number): readonly string[] {
  return Array.from({ length: virtualMebibytes / 2 }, (_, index) => piece(index * 2 * MIB, MIB));
}

/** `count` different pieces of `size` bytes, drawn from `of`, in random order. */
function pick(count: number, of: number, size: number, random: () => number): readonly string[] {
  const all = Array.from({ length: of }, (_, index) => index);
  for (let index = 0; index < count; index += 1) {
    const other = index + Math.floor(random() * (of - index));
    [all[index], all[other]] = [all[other] ?? 0, all[index] ?? 0];
  }
  return all.slice(0, count).map((at) => piece(at * size, size));
}

/** `qemu-io` in runs of 2,000 commands: an argument list has an end. */
function write(directory: string, name: string, commands: readonly string[]): void {
  for (let at = 0; at < commands.length; at += 2000) {
    const args = commands.slice(at, at + 2000).flatMap((command) => ['-c', command]);
    must('qemu-io', ['-f', 'qcow2', ...args, name], directory);
  }
}

/**
 * Puts the chain back as it was, in its own blocks (the first write to a disk block that was never used is several
 * times slower), and leaves all images in the page cache.
 */
export function putBack(chain: BenchChain): void {
  for (const [image, copy] of chain.copies) {
    must('dd', [`if=${copy}`, `of=${image}`, 'bs=1M', 'conv=notrunc,fdatasync', 'status=none']);
    must('truncate', ['-r', copy, image]);
  }
  for (const [path, bytes] of chain.heads) {
    const file = openSync(path, 'r+');
    writeSync(file, bytes, 0, bytes.length, 0);
    closeSync(file);
  }
  must('sync', [...chain.layers]);
  for (const path of chain.layers) readThrough(path);
}

/** Leaves nothing in the page cache. Needs root. */
export function coolDown(): void {
  must('sync', []);
  writeFileSync('/proc/sys/vm/drop_caches', '3');
}

/**
 * Touches memory that was free: in a virtual machine that gives free memory back to its host, the
 * first touch costs ten times a normal page fault, and the run would measure the host.
 */
export function touchMemory(): void {
  const touch = 'dd if=/dev/zero of=/dev/null bs=1300M count=1 status=none';
  must('sh', ['-c', `${touch} & ${touch} & wait`]);
}

/** @throws Error unless base reads as top did, and QEMU finds nothing wrong with it */
export function assertCommitted(chain: BenchChain): void {
  must('qemu-img', ['compare', '-q', '-f', 'qcow2', '-F', 'raw', chain.base, chain.topView]);
  must('qemu-img', ['check', '-q', '-f', 'qcow2', chain.base]);
}

function head(path: string): Buffer {
  const file = openSync(path, 'r');
  const bytes = Buffer.alloc(CLUSTER);
  readSync(file, bytes, 0, CLUSTER, 0);
  closeSync(file);
  return bytes;
}

function readThrough(path: string): void {
  const file = openSync(path, 'r');
  const buffer = Buffer.alloc(MIB);
  while (readSync(file, buffer) > 0);
  closeSync(file);
}
