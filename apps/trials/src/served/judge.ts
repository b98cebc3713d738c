import { readFile, rm } from 'node:fs/promises';
import { connectNbd } from '@downfold/nbd';
import type { Bench } from '@downfold/server/test/support.ts';
import { run } from '../tools/process.ts';
import { checkByQemu, sameByQemu, viewByQemu } from '../tools/qemu.ts';
import type { Book, Promised } from './book.ts';

/** Bytes that our client reads at once. */
const PIECE = 1 << 20;

/** What the server shows, nobody writing: to libnbd, to QEMU and to us. */
export async function shown(
  bench: Bench,
  book: Book,
  promised: Promised,
): Promise<{ readonly disk: Buffer; readonly problems: readonly string[] }> {
  const copy = bench.file('shown.raw');
  await rm(copy, { force: true });
  await bench.must('nbdcopy', '--connections=4', bench.uri, copy);
  const disk = await readFile(copy);
  const problems = [...book.wrongIn(disk, promised)];
  const byQemu = await run('qemu-img', ['compare', '-f', 'raw', '-F', 'raw', bench.uri, copy]);
  if (byQemu.code !== 0) problems.push(`nbdcopy and qemu-img differ: ${said(byQemu)}`);
  if (!(await readByUs(bench)).equals(disk)) problems.push('nbdcopy and our client differ');
  return { disk, problems };
}

/** How files that a server left are judged. */
export interface Expected {
  /** After a crash: what blocks may hold. Null: it is what NBD showed last. */
  readonly book: Book | null;
  /** Clusters that nobody references may be there: a crash leaves them. */
  readonly mayLeak: boolean;
}

/** What is wrong with the files that the server left. */
export async function leftBehind(
  bench: Bench,
  images: readonly string[],
  active: string,
  { book, mayLeak }: Expected,
): Promise<{ readonly disk: Buffer; readonly problems: readonly string[] }> {
  const problems: string[] = [];
  for (const image of images) {
    const fault = await checkByQemu(image);
    const isLeak = fault.startsWith('exit 3');
    if (fault !== '' && !(isLeak && mayLeak)) problems.push(`${image}: ${fault}`);
  }
  const disk = await viewByQemu(active, 'qcow2');
  if (book !== null) problems.push(...book.wrongIn(disk, 'durable'));
  else {
    const difference = await sameByQemu(active, 'qcow2', bench.file('shown.raw'));
    if (difference !== '') problems.push(`QEMU reads otherwise than NBD showed: ${difference}`);
  }
  return { disk, problems };
}

async function readByUs(bench: Bench): Promise<Buffer> {
  await using client = await connectNbd({ server: { path: bench.file('run/nbd.sock') }, name: '' });
  const disk = Buffer.alloc(client.info.size);
  for (let at = 0; at < disk.length; at += PIECE)
    await client.read(at, disk.subarray(at, Math.min(at + PIECE, disk.length)));
  return disk;
}

function said({ stdout, stderr }: { readonly stdout: string; readonly stderr: string }): string {
  return `${stdout}${stderr}`.trim();
}
