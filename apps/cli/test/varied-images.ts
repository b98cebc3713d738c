import { closeSync, openSync, readSync, writeSync } from 'node:fs';
import { type CaseContext, caseContext } from '@downfold/compliance';
import type { Bench } from './support.ts';

/** One layer of a chain that `makeVaried` made. */
interface VariedLayer {
  readonly name: string;
  readonly format: 'qcow2' | 'raw';
}

/** What QEMU's tools made for a seed. */
export interface VariedImage {
  /** The leaf, as it is to be named in the directory. */
  readonly name: string;
  readonly format: 'qcow2' | 'raw';
  /** All of the chain, bottom first; the leaf is the last. */
  readonly layers: readonly VariedLayer[];
  /** Refcounts of the leaf are wrong. */
  readonly damaged: boolean;
}

const KIB = 1024;
const MIB = KIB * KIB;

/** Makes an image, or a chain, as the seed says: every option of qcow2, all kinds of clusters, snapshots, bitmaps, odd sizes, damage. */
export function makeVaried(
  work: Bench,
  seed: number,
  { damaged: mayBe }: { readonly damaged: boolean } = { damaged: true },
): VariedImage {
  const draw = caseContext(seed);
  const one = <T>(...values: readonly T[]): T => values[draw.integer(values.length)] as T;
  const directory = one('', '', 'd/');
  if (directory !== '') work.must('mkdir', '-p', directory);
  const depth = one(1, 1, 2, 3, 4);
  const layers: VariedLayer[] = [];
  for (let index = 0; index < depth; index++) {
    const format = index === 0 && draw.integer(4) === 0 ? 'raw' : 'qcow2';
    const name = `${directory}${index === depth - 1 ? 'x' : `l${index}`}.${format}`;
    const below = layers.at(-1);
    makeLayer(work, draw, { name, format }, below);
    layers.push({ name, format });
  }
  const { name, format } = layers.at(-1) as VariedLayer;
  if (format === 'qcow2') adorn(work, draw, name);
  const damaged = mayBe && format === 'qcow2' && draw.integer(5) === 0;
  if (damaged) damage(work, draw, name);
  // else what the file system has set aside for them changes while they are looked at
  work.must('sync', ...layers.map((layer) => layer.name));
  return { name, format, layers, damaged };
}

function makeLayer(
  work: Bench,
  draw: CaseContext,
  { name, format }: VariedLayer,
  below: VariedLayer | undefined,
): void {
  const size = 512 * (1 + draw.integer((8 * MIB) / 512));
  const options = format === 'raw' ? [] : optionsOf(draw);
  const said = options.length === 0 ? [] : ['-o', options.join(',')];
  const backing =
    below === undefined
      ? []
      : ['-b', below.name.slice(below.name.lastIndexOf('/') + 1), '-F', below.format];
  work.must('qemu-img', 'create', '-q', '-f', format, ...said, ...backing, name, String(size));
  const cluster = clusterOf(options);
  const commands = [
    ...(format === 'raw' ? [] : compressedWrites(draw, size, cluster)),
    ...Array.from({ length: draw.integer(10) }, () => ioCommand(draw, size, format)),
  ];
  if (commands.length > 0) {
    const all = commands.flatMap((command) => ['-c', command]);
    work.must('qemu-io', '-t', 'unsafe', '-f', format, ...all, name);
  }
}

/** `-o` of `qemu-img create`. */
function optionsOf(draw: CaseContext): readonly string[] {
  const one = <T>(...values: readonly T[]): T => values[draw.integer(values.length)] as T;
  const clusters = one(512, 4 * KIB, 64 * KIB, 64 * KIB, 64 * KIB, 256 * KIB, 2 * MIB);
  const options = [`cluster_size=${clusters}`];
  if (one(true, false, false, false)) return [...options, 'compat=0.10'];
  if (clusters >= 16 * KIB && one(true, false)) options.push('extended_l2=on');
  if (one(true, false)) options.push(`refcount_bits=${one(1, 2, 4, 8, 32, 64)}`);
  if (one(true, false, false)) options.push('compression_type=zstd');
  if (one(true, false, false)) options.push('lazy_refcounts=on');
  return options;
}

/** Fills the holes that the file system has in files: QEMU tells them from data. */
export function fillHoles(work: Bench, { layers }: VariedImage): void {
  for (const { name } of layers) {
    work.must('cp', '--sparse=never', name, 'filled');
    work.must('mv', 'filled', name);
    work.must('sync', name);
  }
}

/** Options of a new qcow2 image. */
export function variedOptions(seed: number): readonly string[] {
  return optionsOf(caseContext(seed));
}

/** Arguments of `create` for an empty image; some of them what neither takes. */
export function variedCreate(seed: number): readonly string[] {
  const draw = caseContext(seed);
  const format = one(draw, 'qcow2', 'qcow2', 'qcow2', 'raw');
  const wild = [
    ['compat=0.10', 'compat=1.1', 'compat=v3'],
    ['cluster_size=1k', 'cluster_size=2M', 'cluster_size=3k', 'cluster_size=65536'],
    ['extended_l2=on', 'extended_l2=off'],
    ['preallocation=off', 'preallocation=metadata', 'preallocation=some'],
    ['refcount_bits=1', 'refcount_bits=64', 'refcount_bits=3', 'refcount_bits=16'],
    ['compression_type=zstd', 'compression_type=zlib', 'compression_type=lzma'],
    ['lazy_refcounts=on', 'lazy_refcounts=off'],
  ].flatMap((choices) => (draw.integer(3) === 0 ? [one(draw, ...choices)] : []));
  const large = !wild.includes('preallocation=metadata');
  const size = one(
    draw,
    '1',
    '512',
    '1000',
    '1k',
    '1.5M',
    ...(large ? ['3G', '2T'] : ['3M']),
    '0',
    '1x',
    '-1',
  );
  const said = format === 'raw' || wild.length === 0 ? [] : ['-o', wild.join(',')];
  return ['create', '-f', format, ...said, 'made', size];
}

function clusterOf(options: readonly string[]): number {
  return Number(options.find((option) => option.startsWith('cluster_size='))?.slice(13));
}

/** One command of qemu-io within a disk of `size` bytes. */
function ioCommand(draw: CaseContext, size: number, format: string): string {
  const sectors = Math.floor(size / 512);
  const from = draw.integer(sectors);
  const count = Math.min(sectors - from, 1 + draw.integer(one(draw, 8, 300, 3000)));
  const range = `${from * 512} ${count * 512}`;
  const kind = draw.integer(format === 'raw' ? 6 : 8);
  if (kind < 5) return `write -P ${1 + draw.integer(255)} ${range}`;
  if (kind === 5) return `write -z ${range}`;
  return kind === 6 ? `write -z -u ${range}` : `discard ${range}`;
}

/** Whole clusters that are compressed, none of them twice: QEMU compresses only what is unallocated. */
function compressedWrites(draw: CaseContext, size: number, cluster: number): readonly string[] {
  const clusters = new Set<number>();
  if (size >= cluster)
    for (let count = draw.integer(4); count > 0; count--)
      clusters.add(draw.integer(Math.floor(size / cluster)));
  return [...clusters].map(
    (index) => `write -c -P ${1 + draw.integer(255)} ${index * cluster} ${cluster}`,
  );
}

function one<T>(draw: CaseContext, ...values: readonly T[]): T {
  return values[draw.integer(values.length)] as T;
}

/** Internal snapshots, and bitmaps, where the image may have them. */
function adorn(work: Bench, draw: CaseContext, name: string): void {
  if (draw.integer(4) === 0)
    // one-bit refcounts cannot share a cluster
    for (const snapshot of ['one', 'of a rather long name', '3'].slice(draw.integer(3)))
      work.run('qemu-img', 'snapshot', '-c', snapshot, name);
  if (draw.integer(4) === 0) {
    // version 2 has none
    work.run('qemu-img', 'bitmap', '--add', '-f', 'qcow2', name, 'plain');
    work.run('qemu-img', 'bitmap', '--add', '--disable', '-g', '4k', '-f', 'qcow2', name, 'small');
  }
}

/** Some bits of the first refcount block turned over: leaks, corruptions, or both. */
function damage(work: Bench, draw: CaseContext, name: string): void {
  const file = openSync(work.file(name), 'r+');
  try {
    const pointer = Buffer.alloc(8);
    readSync(file, pointer, 0, 8, 48);
    readSync(file, pointer, 0, 8, Number(pointer.readBigUInt64BE()));
    const block = Number(pointer.readBigUInt64BE());
    const byte = Buffer.alloc(1);
    for (let count = 1 + draw.integer(3); count > 0; count--) {
      const at = block + draw.integer(48);
      readSync(file, byte, 0, 1, at);
      byte[0] = (byte[0] as number) ^ (1 << draw.integer(8));
      writeSync(file, byte, 0, 1, at);
    }
  } finally {
    closeSync(file);
  }
}
