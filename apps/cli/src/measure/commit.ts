import { type ChainLayer, type OpenChain, openChain, subchainExtents } from '@downfold/chain';
import { type CommitPlan, factsIn } from '@downfold/commit';
import { alignUp, ceilDivide, guestOffset, rangeBetween, rangeEnd } from '@downfold/units';
import { chainSource, type Run } from '../copy/disk-source.ts';
import { unitRuns } from '../copy/unit-runs.ts';
import { engineFor } from '../engine.ts';
import { type Access, environmentFor, naming } from '../environment.ts';
import { printResult } from '../output/print.ts';
import { absolute, directoryOf, near } from '../paths.ts';
import { metadataBytes, type Qcow2Shape } from './qcow2-size.ts';

const ENTRY_BYTES = 8;
/** Longest run that is written at once: what is longer starts behind all that is counted, with blocks of its own. */
const PIECE_BYTES = 16 << 20;

/** What is to be committed, as `commit` takes it. */
export interface MeasureCommitOptions extends Access {
  readonly format: string;
  readonly output: string;
  readonly base?: string;
  readonly top?: string;
}

/** How long the file of base is, and may become; bytes. */
interface Growth {
  /** After the commit, at most. */
  readonly required: number;
  /** When every cluster of its disk is allocated, at most. */
  readonly 'fully-allocated': number;
  readonly base: string;
  readonly format: string;
  /** Now. */
  readonly present: number;
}

/** `downfold measure --commit`: how long the file of base may become when top is committed into it. Nothing is written. */
export async function measureCommit(file: string, options: MeasureCommitOptions): Promise<number> {
  const { base, top, format } = options;
  const access = naming(options, base);
  // whom it would strand is not the question
  const anyway = { invalidateSiblings: true, ignoreUnreadable: true };
  const request = { file: absolute(file), format, base, top, strategy: 'copy-down', ...anyway };
  const plan = await engineFor(file, access).plan(request, { estimate: false });
  await using chain = await openChain(absolute(file), format, environmentFor(file, access));
  const growth = await growthOf(plan, chain, directoryOf(file));
  printResult(options, growth, () =>
    [
      `base: ${growth.base}`,
      `present size: ${growth.present}`,
      `required size: ${growth.required}`,
      `fully allocated size: ${growth['fully-allocated']}`,
    ].join('\n'),
  );
  return 0;
}

async function growthOf(plan: CommitPlan, chain: OpenChain, directory: string): Promise<Growth> {
  const { request, growBaseTo, zeroTail } = plan;
  const at = (node: string | null): number =>
    chain.layers.findIndex(({ facts }) => facts.path === factsIn(plan, node).path);
  const [low, high] = [at(request.base), at(request.top)];
  const { facts } = chain.layers[low] as ChainLayer;
  const size = Math.max(facts.geometry.virtualSize, growBaseTo ?? 0);
  const told = {
    base: near(directory, facts.path),
    format: facts.format,
    present: facts.fileLength,
  };
  if (facts.format !== 'qcow2') {
    const required = Math.max(facts.fileLength, size);
    return { required, 'fully-allocated': required, ...told };
  }
  const base = await baseOf(chain, low, size);
  const layers = chain.layers.slice(0, high + 1);
  const written = chainSource({ ...chain, layers }, { base: low });
  const zeroed = [
    // what lies below must not show in what is added
    ...(growBaseTo === null || facts.backing === null ? [] : [[facts.geometry.virtualSize, size]]),
    ...(zeroTail === null ? [] : [[zeroTail.offset, rangeEnd(zeroTail)]]),
  ].map(([start = 0, end = 0]): Run => ({ kind: 'zero', start, end }));
  const clusters =
    (await newClusters(base, written.runs(), written.length)) +
    (await newClusters(base, batchesOf(zeroed), size));
  const l1 =
    growBaseTo === null
      ? 0
      : ceilDivide(ceilDivide(size, base.reach) * ENTRY_BYTES, base.shape.clusterSize);
  const required = lengthWith(base.shape, facts.fileLength, clusters + l1);
  const whole = alignUp(size, base.shape.clusterSize);
  const full = metadataBytes(base.shape, whole) + whole;
  return { required, 'fully-allocated': Math.max(required, full), ...told };
}

/** One batch for each run: a run that cuts a cluster is data there. */
async function* batchesOf(runs: readonly Run[]): AsyncGenerator<readonly Run[], void, undefined> {
  for (const run of runs) yield [run];
}

/** What is known of base before it is written. */
interface Base {
  readonly shape: Qcow2Shape;
  /** Guest bytes of one L2 table. */
  readonly reach: number;
  /** For each L2 table: 1 when it is there and not shared. */
  readonly tables: Uint8Array;
  /** It has no zero clusters, and something below it that zeros must hide. */
  readonly zeroIsData: boolean;
  /** Clusters that are written in place, as runs. */
  inPlace(): AsyncIterator<Run>;
}

async function baseOf({ layers }: OpenChain, index: number, size: number): Promise<Base> {
  const { image } = layers[index] as ChainLayer;
  const { virtualSize, clusterSize } = image.geometry;
  const { specific, snapshots } = await image.describe();
  const extendedL2 = specific['extended-l2'] === true;
  const encrypt = specific['encrypt'] as { readonly 'payload-offset': number } | undefined;
  const shape: Qcow2Shape = {
    clusterSize,
    extendedL2,
    refcountBits: Number(specific['refcount-bits']),
    encryptionBytes: encrypt?.['payload-offset'] ?? 0,
  };
  const reach = (clusterSize / (extendedL2 ? 16 : 8)) * clusterSize;
  const tables = new Uint8Array(ceilDivide(size, reach));
  const range = rangeBetween(guestOffset(0), virtualSize);
  const own = { base: index - 1, top: index };
  // what a snapshot shares is copied before it is written
  const shared = snapshots.length > 0;
  for await (const batch of subchainExtents(layers, own, range))
    for (const extent of batch)
      if (extent.status !== 'unallocated' && !shared)
        tables.fill(1, Math.floor(extent.offset / reach), ceilDivide(rangeEnd(extent), reach));
  const runs = async function* (): AsyncGenerator<readonly Run[], void, undefined> {
    for await (const batch of subchainExtents(layers, own, range))
      yield Array.from(batch, (extent) => ({
        kind: extent.status === 'data' && !shared ? 'data' : 'below',
        start: extent.offset,
        end: rangeEnd(extent),
      }));
  };
  const inPlace = (): AsyncIterator<Run> => unitRuns(runs(), clusterSize, virtualSize);
  const zeroIsData = specific['compat'] === '0.10' && image.backing !== null;
  return { shape, reach, tables, zeroIsData, inPlace };
}

/** Clusters that base does not have yet, tables among them, when all of `runs` is written to it. */
async function newClusters(
  { shape, reach, tables, zeroIsData, inPlace }: Base,
  runs: AsyncIterable<readonly Run[]>,
  length: number,
): Promise<number> {
  const { clusterSize, refcountBits } = shape;
  const perBlock = (clusterSize * 8) / refcountBits;
  const touched = new Uint8Array(tables.length);
  const own = inPlace();
  let present = await own.next();
  let count = 0;
  for await (const { kind, start, end } of unitRuns(runs, clusterSize, length)) {
    if (kind === 'below') continue;
    touched.fill(1, Math.floor(start / reach), ceilDivide(end, reach));
    // zeros are metadata, but where they cut a cluster, and there unitRuns says data
    if (kind === 'zero' && !zeroIsData) continue;
    const clusters = ceilDivide(end - start, clusterSize);
    count += clusters;
    // what is left of the last block stays free
    if (clusters > perBlock) count += perBlock * (1 + ceilDivide(end - start, PIECE_BYTES));
    while (present.done !== true && present.value.start < end) {
      const { value } = present;
      if (value.kind === 'data') count -= clustersOfBoth(value, { start, end }, clusterSize);
      if (value.end > end) break;
      present = await own.next();
    }
  }
  await own.return?.();
  for (const [index, one] of touched.entries()) if (one === 1 && tables[index] === 0) count++;
  return count;
}

function clustersOfBoth(
  a: Pick<Run, 'start' | 'end'>,
  b: Pick<Run, 'start' | 'end'>,
  clusterSize: number,
): number {
  const bytes = Math.min(a.end, b.end) - Math.max(a.start, b.start);
  return bytes <= 0 ? 0 : ceilDivide(bytes, clusterSize);
}

/**
 * Length of a file that gets so many clusters more, with what counts them. A refcount table that becomes too small moves, by half as large
 * again each time, and the places it leaves add up to as much once more.
 */
function lengthWith(
  { clusterSize, refcountBits }: Qcow2Shape,
  present: number,
  more: number,
): number {
  const perBlock = (clusterSize * 8) / refcountBits;
  const entries = clusterSize / ENTRY_BYTES;
  const now = ceilDivide(present, clusterSize);
  if (more === 0) return present;
  let total = now + more;
  for (let last = 0; last !== total; ) {
    last = total;
    const blocks = ceilDivide(total, perBlock);
    const table = blocks > entries ? ceilDivide(4.5 * blocks, entries) : 0;
    const tableBlocks = ceilDivide(table, perBlock - 1);
    total = now + more + (blocks - ceilDivide(now, perBlock)) + table + tableBlocks;
  }
  return total * clusterSize;
}
