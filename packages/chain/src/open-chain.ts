import type { Image } from '@downfold/image';
import { type FileIdentity, type OpenMode, READER } from '@downfold/storage';
import { ChainError } from './errors.ts';
import type { ChainLayer, LayerFacts, OpenChain } from './layer.ts';
import { lockImage } from './lock.ts';
import {
  type ChainEnvironment,
  factsOf,
  openImageAt,
  resolveBacking,
  rootsFor,
} from './resolve.ts';

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
  const seen = new Map<string, string>();
  await using opened = new AsyncDisposableStack();
  let next: { path: string; format: string } | null = { path: leaf, format };
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
    images.push({ path: next.path, image });
    const missing = (cause: unknown): null => {
      if (untilMissing && cause instanceof ChainError && cause.code === 'CHAIN_MISSING')
        return null;
      throw cause;
    };
    next =
      image.backing === null
        ? null
        : await resolveBacking(image.backing, next.path, roots, backend).catch(missing);
  }
  images.reverse();
  const layers: ChainLayer[] = [];
  for (const [index, { path: at, image }] of images.entries())
    layers.push({ facts: await factsOf(`l${index}`, at, image, backend), image });
  const all = opened.move();
  return { layers, [Symbol.asyncDispose]: () => all.disposeAsync() };
}

async function assertNoLoop(
  path: string,
  seen: Map<string, string>,
  environment: ChainEnvironment,
): Promise<void> {
  const { identity } = await environment.backend.facts(path);
  const key = identityKey(identity);
  const before = seen.get(key);
  if (before !== undefined)
    throw new ChainError('CHAIN_LOOP', `${path}: backs itself; the chain has no end`, {
      image: path,
      seenAs: before,
    });
  seen.set(key, path);
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
  if (identityKey(image.file.identity) === identityKey(facts.identity)) return { facts, image };
  await image[Symbol.asyncDispose]();
  throw new ChainError(
    'CHAIN_MISSING',
    `${facts.path}: is another file now than when it was looked at`,
    { image: facts.path },
  );
}

/** A text that is equal for equal identities. */
export function identityKey(identity: FileIdentity): string {
  return `${identity.device}:${identity.inode}`;
}
