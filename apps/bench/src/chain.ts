import {
  closeSync,
  copyFileSync,
  mkdirSync,
  openSync,
  readSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { seededRandom } from '@downfold/compliance';
import { must } from './process.ts';

const MIB = 1 << 20;
const CLUSTER = 65536;

/** How the data of top lies on its disk. */
export type Shape = 'sequential' | 'scattered';

/** base <- mid <- top, made once, put back before every run. */
export interface BenchChain {
  readonly base: string;
  readonly top: string;
  /** Base as it was. */
  readonly baseCopy: string;
  /** What top read as, raw. */
  readonly topView: string;
  /** First clusters of mid and top: Downfold relinks top and marks mid, so they are put back too. */
  readonly heads: ReadonlyMap<string, Buffer>;
}

/**
 * A chain whose top holds `mebibytes` MiB: in one piece, or as random clusters of 64 KiB over twice the space. Half of what is
 * committed is allocated in base already, half is new there. Fixed seeds.
 */
export function makeChain(directory: string, shape: Shape, mebibytes: number): BenchChain {
  mkdirSync(directory);
  const path = (name: string): string => join(directory, name);
  const random = seededRandom(shape === 'sequential' ? 1 : 2);
  const noise = Buffer.from(Uint8Array.from({ length: 65_521 }, () => random() * 256));
  writeFileSync(path('pattern'), noise);
  const virtual = mebibytes * (shape === 'sequential' ? 1 : 2);
  const create = (name: string, below: string | null): void => {
    const onto = below === null ? [] : ['-b', below, '-F', 'qcow2'];
    must('qemu-img', ['create', '-q', '-f', 'qcow2', ...onto, name, `${virtual}M`], directory);
  };
  create('base.qcow2', null);
  write(directory, 'base.qcow2', alternate(virtual));
  create('mid.qcow2', 'base.qcow2');
  write(directory, 'mid.qcow2', clusters(Math.ceil((mebibytes * 16) / 64), virtual * 16, random));
  create('top.qcow2', 'mid.qcow2');
  const data =
    shape === 'sequential'
      ? Array.from({ length: Math.ceil(mebibytes / 2) }, (_, index) =>
          piece(index * 2 * MIB, 2 * MIB),
        )
      : clusters(mebibytes * 16, virtual * 16, random);
  write(directory, 'top.qcow2', data);
  copyFileSync(path('base.qcow2'), path('base.saved'));
  must('qemu-img', ['convert', '-f', 'qcow2', '-O', 'raw', 'top.qcow2', 'top.raw'], directory);
  return {
    base: path('base.qcow2'),
    top: path('top.qcow2'),
    baseCopy: path('base.saved'),
    topView: path('top.raw'),
    heads: new Map([path('mid.qcow2'), path('top.qcow2')].map((name) => [name, head(name)])),
  };
}

const piece = (offset: number, length: number): string => `write -q -s pattern ${offset} ${length}`;

/** One MiB in two, over the whole disk. */
function alternate(virtualMebibytes: number): string[] {
  return Array.from({ length: virtualMebibytes / 2 }, (_, index) => piece(index * 2 * MIB, MIB));
}

/** `count` different clusters, drawn from `of`, in random order. */
function clusters(count: number, of: number, random: () => number): string[] {
  const all = Array.from({ length: of }, (_, index) => index);
  for (let index = 0; index < count; index += 1) {
    const other = index + Math.floor(random() * (of - index));
    [all[index], all[other]] = [all[other] ?? 0, all[index] ?? 0];
  }
  return all.slice(0, count).map((cluster) => piece(cluster * CLUSTER, CLUSTER));
}

/** `qemu-io` in runs of 2,000 commands: an argument list has an end. */
function write(directory: string, name: string, commands: readonly string[]): void {
  for (let at = 0; at < commands.length; at += 2000) {
    const args = commands.slice(at, at + 2000).flatMap((command) => ['-c', command]);
    must('qemu-io', ['-f', 'qcow2', ...args, name], directory);
  }
}

/**
 * Puts the chain back as it was, base in its own blocks (the first write to a disk block that was never used is several
 * times slower), and leaves all images in the page cache.
 */
export function putBack(chain: BenchChain): void {
  const [from, to] = [`if=${chain.baseCopy}`, `of=${chain.base}`];
  must('dd', [from, to, 'bs=1M', 'conv=notrunc,fdatasync', 'status=none']);
  must('truncate', ['-r', chain.baseCopy, chain.base]);
  for (const [path, bytes] of chain.heads) {
    const file = openSync(path, 'r+');
    writeSync(file, bytes, 0, bytes.length, 0);
    closeSync(file);
  }
  must('sync', [...chain.heads.keys()]);
  for (const path of [chain.base, ...chain.heads.keys()]) readThrough(path);
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
