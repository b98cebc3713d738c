import { constants } from 'node:fs';
import { copyFile, open, readdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { draw } from '../tools/draw.ts';
import { must } from '../tools/process.ts';
import { qemuIo, viewByQemu } from '../tools/qemu.ts';

const MIB = 1 << 20;
const PIECE = 4 * MIB;
const HEADER = 65536;
const IMAGES = ['base', 'mid', 'top', 'active'] as const;

/** A chain base <- mid <- top <- active in a directory, and how to put it back as it was. */
export interface KillChain {
  readonly directory: string;
  readonly base: string;
  readonly top: string;
  readonly active: string;
  /** Raw copies of what active and top read as before the first commit. */
  readonly activeView: string;
  readonly topView: string;
  /** Bytes that a commit of top into base copies. */
  readonly bytesToCopy: number;
  /** Puts the images back as they were, and removes whatever else lies there. */
  restore(): Promise<void>;
  /** Names in the directory that are none of the images: the journal. */
  leftovers(): Promise<readonly string[]>;
}

/** Makes a chain whose mid and top hold `mebibytes` MiB of data between them, no two clusters alike. */
export async function killChain(directory: string, mebibytes: number): Promise<KillChain> {
  const at = (name: string): string => join(directory, `${name}.qcow2`);
  const saved = (name: string): string => join(directory, 'saved', name);
  await must('mkdir', [join(directory, 'saved')]);
  await makeImages(directory, mebibytes);
  const [base, top, active] = [at('base'), at('top'), at('active')];
  await copyFile(base, saved('base'), constants.COPYFILE_FICLONE);
  const heads = new Map<string, Buffer>();
  for (const name of IMAGES.slice(1)) heads.set(name, await readHead(at(name)));
  const views = { activeView: saved('active.raw'), topView: saved('top.raw') };
  await writeFile(views.activeView, await viewByQemu(active, 'qcow2'));
  await writeFile(views.topView, await viewByQemu(top, 'qcow2'));
  const leftovers = async (): Promise<string[]> => {
    const known = new Set(['saved', 'pattern', ...IMAGES.map((name) => `${name}.qcow2`)]);
    return (await readdir(directory)).filter((name) => !known.has(name));
  };
  const restore = async (): Promise<void> => {
    for (const name of await leftovers()) await rm(join(directory, name));
    await rm(base, { force: true });
    await copyFile(saved('base'), base, constants.COPYFILE_FICLONE);
    // a commit changes nothing of the others but their header cluster; the comparisons would show it if it did
    for (const [name, head] of heads) await writeHead(at(name), head);
  };
  return {
    directory,
    base,
    top,
    active,
    ...views,
    bytesToCopy: mebibytes * MIB,
    restore,
    leftovers,
  };
}

async function makeImages(directory: string, mebibytes: number): Promise<void> {
  const from = draw(mebibytes);
  const pattern = Uint8Array.from({ length: 65_521 }, () => from.integer(256));
  await writeFile(join(directory, 'pattern'), pattern);
  const size = `${mebibytes + 64}M`;
  for (const [index, name] of IMAGES.entries()) {
    const below = IMAGES[index - 1];
    const onto = below === undefined ? [] : ['-b', `${below}.qcow2`, '-F', 'qcow2'];
    const args = ['create', '-q', '-f', 'qcow2', ...onto, `${name}.qcow2`, size];
    await must('qemu-img', args, { cwd: directory });
  }
  const pieces = (mebibytes * MIB) / PIECE;
  const write = (piece: number): string => `write -q -s pattern ${piece * PIECE} ${PIECE}`;
  const every = (step: number, first: number): string[] =>
    Array.from({ length: Math.ceil((pieces - first) / step) }, (_, i) => write(first + i * step));
  const io = (name: string, commands: readonly string[]): Promise<void> =>
    qemuIo(`${name}.qcow2`, 'qcow2', commands, { cwd: directory });
  await io('base', ['write -q -P 0x11 0 8M', `write -q -P 0x12 ${mebibytes * MIB} 8M`]);
  await io('mid', every(2, 0));
  await io('top', every(2, 1));
  await io('active', ['write -q -P 0x77 1M 64k', `write -q -P 0x78 ${mebibytes * MIB + MIB} 64k`]);
}

async function readHead(path: string): Promise<Buffer> {
  const file = await open(path, 'r');
  try {
    const head = Buffer.alloc(HEADER);
    await file.read(head, 0, HEADER, 0);
    return head;
  } finally {
    await file.close();
  }
}

async function writeHead(path: string, head: Buffer): Promise<void> {
  const file = await open(path, 'r+');
  try {
    await file.write(head, 0, head.length, 0);
  } finally {
    await file.close();
  }
}
