import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { type MemoryDisk, type Recording, record } from '@downfold/storage-memory';
import { byteLength } from '@downfold/units';
import { engine } from '../downfold.ts';
import { loadChain, makeChain, type OwnCluster, pathOf } from './chain.ts';
import { type Operation, readTrace } from './operations.ts';
import { logOf } from './trace.ts';

/** Bytes between two checkpoints of ours: small, so that there are several. */
const CHECKPOINT = byteLength(256 << 10);

/** What QEMU, or our server, does on the chain of a seed, as a recording. */
export async function recordTraced(
  operation: Operation,
  seed: number,
  directory: string,
): Promise<Recording> {
  const { disk, own } = await freshChain(seed, directory);
  await operation.run(directory, join(directory, 'trace'), own);
  const log = logOf(await readTrace(directory, 'trace'), disk);
  if (log.length === 0) throw new Error(`${operation.name}: strace saw nothing`);
  return { ...record(disk), log };
}

/** Something that we do with a chain. */
export interface OurJob {
  readonly name: string;
  readonly strategy: string;
  /** `commit`: what is committed into base; `stream` has none. */
  readonly top?: 'top' | 'active';
  readonly emptyTop?: boolean;
}

/** Each way of ours to fold the layers of the chain. */
export const OUR_JOBS: readonly OurJob[] = [
  { name: 'copy-down, intermediate', strategy: 'copy-down', top: 'top' },
  { name: 'depth-first, intermediate', strategy: 'depth-first', top: 'top' },
  { name: 'preserve, intermediate', strategy: 'preserve', top: 'top' },
  { name: 'staged, intermediate', strategy: 'staged', top: 'top' },
  { name: 'stream onto base', strategy: 'stream' },
  {
    name: 'copy-down of active, which is emptied',
    strategy: 'copy-down',
    top: 'active',
    emptyTop: true,
  },
];

/** What one of our jobs does on the same chain. */
export async function recordOurs(job: OurJob, seed: number, directory: string): Promise<Recording> {
  const { disk } = await freshChain(seed, directory);
  const recording = record(disk);
  const ours = engine(recording.backend);
  const plan = await ours.plan({
    file: pathOf('active'),
    format: 'qcow2',
    base: pathOf('base'),
    ...(job.top === undefined ? {} : { top: pathOf(job.top) }),
    strategy: job.strategy,
    emptyTop: job.emptyTop ?? false,
    checkpointBytes: CHECKPOINT,
  });
  await ours.run(plan);
  return recording;
}

async function freshChain(
  seed: number,
  directory: string,
): Promise<{ readonly disk: MemoryDisk; readonly own: OwnCluster }> {
  await mkdir(directory);
  const own = await makeChain(directory, seed);
  return { disk: await loadChain(directory), own };
}
