import { posix } from 'node:path';
import type { Image } from '@downfold/image';
import { isUrl, type OpenMode, READER } from '@downfold/storage';
import { openDataFileOf } from './data-file.ts';
import { ChainError, sharedDataFile } from './errors.ts';
import { withoutFilePrefix } from './file-name.ts';
import { identityKey, identityOf } from './identity.ts';
import type { ChainLayer, LayerFacts, OpenChain } from './layer.ts';
import { type ResolvedBacking, resolveBacking, rootsFor } from './locate.ts';
import { lockImage } from './lock.ts';
import type { ChainEnvironment } from './policy.ts';
import { factsOf, openImageAt } from './resolve.ts';

const HARDEST_DEPTH = 1024;

/** How far down a chain is opened. */
export interface OpenChainOptions {
  /** Ends the chain above a backing file that is not there; nothing must be read through it. Default: that is an error. */
  readonly untilMissing?: boolean;
}

/**
 * Opens an image and all below it, read-only, and locked so that nobody else writes them; leaf first, each backing file by the policy's
 * rules. `format` is the leaf's: it is said, never guessed. On failure everything opened is closed again.
 * @throws ChainError, ImageError or StorageError
 */
export async function openChain(
  path: string,
  format: string,
  environment: ChainEnvironment,
  { untilMissing = false }: OpenChainOptions = {},
): Promise<OpenChain> {
  const { backend, policy } = environment;
  const leaf = await backend.realPath(path);
  const roots = await rootsFor(leaf, environment);
  const images: { path: string; image: Image }[] = [];
  const seen: Seen = new Map();
  await using opened = new AsyncDisposableStack();
  let next: { path: string; format: string } | null = { path: leaf, format };
  let named = path;
  while (next !== null) {
    environment.signal?.throwIfAborted();
    if (images.length >= Math.min(policy.depth, HARDEST_DEPTH))
      throw new ChainError('CHAIN_TOO_DEEP', `${leaf}: has more than ${policy.depth} layers`, {
        image: leaf,
        limit: policy.depth,
      });
    await assertNoLoop(next.path, seen, environment);
    opened.use(await lockImage(next.path, READER, environment));
    const place = images.length === 0 ? 'leaf' : 'below';
    const image: Image = opened.use(
      await openImageAt(next.path, next.format, 'read', environment, place),
    );
    assertOwnDataFile(next.path, image, seen);
    images.push({ path: next.path, image });
    const missing = (cause: unknown): null => {
      if (untilMissing && cause instanceof ChainError && cause.code === 'CHAIN_MISSING')
        return null;
      throw cause;
    };
    if (image.backing === null) break;
    const { name } = image.backing;
    const below: ResolvedBacking | null = await resolveBacking(
      image.backing,
      next.path,
      roots,
      backend,
    ).catch(missing);
    if (below === null) break;
    named = await nameBelow(named, next.path, name, below.path, environment);
    next = below;
  }
  images.reverse();
  const layers: ChainLayer[] = [];
  for (const [index, { path: at, image }] of images.entries())
    layers.push({ facts: await factsOf(`l${index}`, at, image, backend), image });
  const all = opened.move();
  return { layers, [Symbol.asyncDispose]: () => all.disposeAsync() };
}

/**
 * What QEMU would open as the backing file of an image that was named `named` and lies at `path`, by its name alone: it looks beside the name, and
 * `path` may lie elsewhere, when links lead there.
 * @param below where the backing file was found
 * @throws ChainError `CHAIN_AMBIGUOUS` when that is another file
 */
async function nameBelow(
  named: string,
  path: string,
  name: string,
  below: string,
  { backend }: ChainEnvironment,
): Promise<string> {
  if (isUrl(name) || isUrl(named)) return below;
  const plain = withoutFilePrefix(name);
  // not made shorter: the system goes up from where a linked directory really lies
  const beside = posix.isAbsolute(plain) ? plain : `${posix.dirname(named)}/${plain}`;
  if (posix.dirname(named) === posix.dirname(path)) return beside;
  const [there, found] = [await identityOf(beside, backend), await identityOf(below, backend)];
  if (there === null || (found !== null && identityKey(there) === identityKey(found)))
    return beside;
  throw new ChainError(
    'CHAIN_AMBIGUOUS',
    `${named}: is a link to '${path}', and its backing file '${name}' is '${beside}' beside the link and '${below}' beside the image; name the image itself, '${path}', if that is meant`,
    { image: path, name, beside, below },
  );
}

/** Files of a chain by identity: the path of the layer, and whether it is that layer's data file. */
type Seen = Map<string, { readonly path: string; readonly data: boolean }>;

async function assertNoLoop(
  path: string,
  seen: Seen,
  environment: ChainEnvironment,
): Promise<void> {
  const { identity } = await environment.backend.facts(path);
  const key = identityKey(identity);
  const before = seen.get(key);
  if (before?.data === true) throw sharedDataFile(before.path, path);
  if (before !== undefined)
    throw new ChainError('CHAIN_LOOP', `${path}: backs itself; the chain has no end`, {
      image: path,
      seenAs: before.path,
    });
  seen.set(key, { path, data: false });
}

/** @throws ChainError `CHAIN_SHARED_DATA` when the data file of a layer is another layer, or another one's data file */
function assertOwnDataFile(path: string, image: Image, seen: Seen): void {
  const data = openDataFileOf(image);
  if (data === null) return;
  const key = identityKey(data.identity);
  const before = seen.get(key);
  if (before !== undefined) throw sharedDataFile(path, before.path);
  seen.set(key, { path, data: true });
}

/**
 * Opens one layer again by what is known of it, for reading or writing.
 * @throws ChainError `CHAIN_MISSING` when another file has its name now (by device and inode)
 */
export async function openLayer(
  facts: LayerFacts,
  mode: OpenMode,
  environment: ChainEnvironment,
): Promise<ChainLayer> {
  // how it may be read was decided when it was looked at; here it is a part of a job
  const image = await openImageAt(facts.path, facts.format, mode, environment, 'below');
  const same = identityKey(image.file.identity) === identityKey(facts.identity);
  if (same && hasDataFileOf(image, facts)) return { facts, image };
  await image[Symbol.asyncDispose]();
  throw new ChainError(
    'CHAIN_MISSING',
    `${facts.path}: ${same ? 'its data file is' : 'is'} another file now than when it was looked at`,
    { image: facts.path },
  );
}

/** By the inode alone: an image that was moved with its data file to another file system's mount is the same. */
function hasDataFileOf(image: Image, { dataFile }: LayerFacts): boolean {
  return openDataFileOf(image)?.identity.inode === dataFile?.identity.inode;
}
