import {
  type ChainEnvironment,
  type ChainLayer,
  factsOf,
  openChain,
  openImageAt,
  openLayer,
} from '@downfold/chain';
import { absolutePath } from '@downfold/host';
import { isUrl, READER, WRITER } from '@downfold/storage';
import { ServerError } from '../errors.ts';
import { DiskLocks } from './locks.ts';

/** Layers that are open for reading, bottom first, and their locks. */
export interface OpenLayers {
  readonly layers: readonly ChainLayer[];
  readonly locks: DiskLocks;
}

/**
 * Opens an image and all below it as the images say, under the rules for backing files: read-only, and locked so that nobody else
 * writes them.
 */
export async function openWhole(
  path: string,
  format: string,
  environment: ChainEnvironment,
): Promise<OpenLayers> {
  // the rules are the resolver's; here its layers are opened once more, each with a lock that can be changed alone
  await using found = await openChain(path, format, environment);
  return opened(environment, async (locks, open) => {
    for (const { facts } of found.layers) {
      await locks.add(facts.path, READER);
      open(await openLayer(facts, 'read', environment));
    }
  });
}

/** Opens an image alone; nothing is looked up below it. */
export async function openSingle(
  path: string,
  format: string,
  environment: ChainEnvironment,
): Promise<OpenLayers> {
  return opened(environment, async (locks, open) => {
    await locks.add(path, READER);
    const image = await openImageAt(path, format, 'read', environment, 'below');
    open({ facts: await factsOf('l0', path, image, environment.backend), image });
  });
}

/** On failure everything that was opened is closed again. */
async function opened(
  environment: ChainEnvironment,
  work: (locks: DiskLocks, open: (layer: ChainLayer) => void) => Promise<void>,
): Promise<OpenLayers> {
  const layers: ChainLayer[] = [];
  await using stack = new AsyncDisposableStack();
  const locks = stack.use(new DiskLocks(environment));
  await work(locks, (layer) => {
    stack.use(layer.image);
    layers.push(layer);
  });
  stack.move();
  return { layers, locks };
}

/**
 * Opens a layer, which is locked for reading, once more for writing: its lock is raised, and its metadata checked. Of the one that becomes the active
 * layer (`isActive`), clusters that a crash left counted and unreferenced are given back: later, such clusters are those of requests under way. Of
 * others they may be what an interrupted job has staged.
 * @throws ServerError `SERVER_UNCHECKED`; the lock is what it was then
 */
export async function openForWriting(
  { facts }: ChainLayer,
  locks: DiskLocks,
  environment: ChainEnvironment,
  { isActive }: { readonly isActive: boolean },
): Promise<ChainLayer> {
  const before = await locks.change(facts.path, WRITER);
  try {
    const layer = await openLayer(facts, 'write', environment);
    await using stack = new AsyncDisposableStack();
    stack.use(layer.image);
    const { corruptions, leaks } = await layer.image.check();
    if (corruptions > 0)
      throw new ServerError(
        'SERVER_UNCHECKED',
        `${facts.path}: ${corruptions} errors in its metadata; it is not written to; repair it first: downfold check -r all`,
        { image: facts.path, corruptions },
      );
    if (isActive && leaks > 0) await layer.image.reclaimLeaks();
    const again = await asItIs(layer, environment);
    stack.move();
    return again;
  } catch (cause) {
    if (before !== null) await locks.change(facts.path, before);
    throw cause;
  }
}

/**
 * Opens a layer once more, for reading, as its writer leaves it: what that has of bitmaps is saved first, for closing it later would do so behind the back
 * of the one that is opened here. The layer stays open, and its lock what it is.
 */
export async function openForReading(
  { facts, image }: ChainLayer,
  environment: ChainEnvironment,
): Promise<ChainLayer> {
  await image.bitmaps?.save();
  const open = await openLayer(facts, 'read', environment);
  await using stack = new AsyncDisposableStack();
  stack.use(open.image);
  const again = await asItIs(open, environment);
  stack.move();
  return again;
}

/** A layer with what is known of it now. */
async function asItIs(
  { facts: { node, path }, image }: ChainLayer,
  { backend }: ChainEnvironment,
): Promise<ChainLayer> {
  return { facts: await factsOf(node, path, image, backend), image };
}

/** Absolute, links resolved; of a URL the one way to write it. @throws StorageError when it is not there */
export function realPath(file: string, { backend }: ChainEnvironment): Promise<string> {
  return backend.realPath(isUrl(file) ? file : absolutePath(file));
}
