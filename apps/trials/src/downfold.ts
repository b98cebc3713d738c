// The assembly of the trials: the only file here that knows how Downfold's parts are put together.
import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  type ChainEnvironment,
  type ChainPolicy,
  defaultPolicy,
  openChain,
  readMark,
  subchainExtents,
  viewOf,
} from '@downfold/chain';
import { type CommitStrategy, createEngine, type Engine } from '@downfold/commit';
import { qcow2 } from '@downfold/qcow2';
import { raw } from '@downfold/raw';
import { type BackendDriver, openBackend, type StorageBackend } from '@downfold/storage';
import { fileBackend, fileBackendDriver } from '@downfold/storage-file';
import { auto, copyDown, depthFirst, preserve, rebase, staged, stream } from '@downfold/strategies';
import { byteLength, guestOffset } from '@downfold/units';

/** An open chain as trials look at it. */
export interface OpenForReading extends AsyncDisposable {
  /** Bytes of the leaf's virtual disk. */
  readonly virtualSize: number;
  /** Walks the allocation of the whole chain until `most` extents were seen; resolves with their number. */
  map(most: number): Promise<number>;
  /** Fills `target` with what the layer at `index` (default: the leaf) shows. */
  read(at: number, target: Uint8Array, index?: number): Promise<void>;
  /** Checks the leaf. */
  check(): Promise<'clean' | 'leaks' | 'corruptions'>;
  /** All that the leaf says of itself. */
  describe(): Promise<void>;
  /** Virtual sizes, bottom first. */
  readonly sizes: readonly number[];
}

/** Opens a chain by the safe defaults, as the command line does, but for `policy`; every path opened for data is added to `opened`. */
export async function openForReading(
  path: string,
  format = 'qcow2',
  opened: string[] = [],
  policy: Partial<ChainPolicy> = {},
): Promise<OpenForReading> {
  const backend = openBackend(traced(fileBackendDriver(), opened));
  const environment: ChainEnvironment = {
    backend,
    formats: [qcow2, raw],
    policy: { ...defaultPolicy, ...policy },
  };
  const chain = await openChain(path, format, environment);
  const { layers } = chain;
  const leaf = layers.at(-1)?.image;
  if (leaf === undefined) throw new Error(`${path}: a chain without layers`);
  const { virtualSize } = leaf.geometry;
  return {
    virtualSize,
    sizes: layers.map(({ image }) => image.geometry.virtualSize),
    map: async (most) => {
      let count = 0;
      const range = { offset: guestOffset(0), length: byteLength(virtualSize) };
      const subchain = { base: -1, top: layers.length - 1 };
      for await (const batch of subchainExtents(layers, subchain, range)) {
        count += batch.length;
        if (count > most) break;
      }
      return count;
    },
    read: (at, target, index = layers.length - 1) => viewOf(layers, index)(guestOffset(at), target),
    check: async () => {
      const { corruptions, leaks } = await leaf.check();
      return corruptions > 0 ? 'corruptions' : leaks > 0 ? 'leaks' : 'clean';
    },
    describe: async () => void (await leaf.describe()),
    [Symbol.asyncDispose]: () => chain[Symbol.asyncDispose](),
  };
}

/** The state that an image is marked with, inside it or beside it; null: none. */
export async function markOf(path: string, format: 'qcow2' | 'raw'): Promise<string | null> {
  const backend = fileBackend();
  const storage = await backend.open(path, 'read');
  await using image = await (format === 'raw' ? raw : qcow2).open(storage, { mode: 'read' });
  return (await readMark(image, backend))?.state ?? null;
}

/** Strategies that commit, by name. */
const COMMITTING: readonly CommitStrategy[] = [copyDown, depthFirst, preserve, staged];

/** An engine with every strategy; on this machine's files by default. */
export function engine(
  backend: StorageBackend = fileBackend(),
  policy: Partial<ChainPolicy> = {},
): Engine {
  return createEngine({
    backend,
    policy,
    formats: [qcow2, raw],
    strategies: [...COMMITTING, auto(COMMITTING), stream, rebase],
    owner: { host: 'trials', bootId: 'trials', pid: process.pid },
    isAlive: () => false,
    newJobId: randomUUID,
    clock: {
      now: () => performance.now(),
      sleep: (milliseconds, signal) => sleep(milliseconds, undefined, { signal }),
      date: () => new Date().toISOString(),
    },
  });
}

/** A backend that writes down what it opens, by real path. */
function traced(driver: BackendDriver, opened: string[]): BackendDriver {
  return {
    ...driver,
    open: async (path, mode) => {
      const storage = await driver.open(path, mode);
      opened.push(await driver.realPath(path));
      return storage;
    },
  };
}
