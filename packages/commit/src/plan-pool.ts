import {
  type ChainEnvironment,
  type ChainLayer,
  dependentsOf,
  identityKey,
  imageOf,
  type LayerFacts,
  type NodeId,
  type OpenChain,
  overlaysOf,
  type PoolGraph,
  type PoolImage,
  sharedDataFile,
  strandedBy,
  unreadableIn,
} from '@downfold/chain';
import { CommitError } from './errors.ts';
import type { CommitRequest, Dependent, Unreadable } from './plan.ts';
import type { CommitStrategy } from './strategy.ts';

/** Indexes into the chain; base -1: none of its layers. */
export interface Ends {
  readonly base: number;
  readonly top: number;
}

/** `rebase`: the new backing chain, as far as it is not part of the old one. */
export interface Onto extends AsyncDisposable {
  readonly layers: readonly ChainLayer[];
  /** Node of the new backing file; null: none, or `absent`. */
  readonly node: NodeId | null;
  readonly absent?: NonNullable<CommitRequest['absent']>;
  /** Node of the old chain that the lowest of `layers` reads through to, or null. */
  readonly backing: NodeId | null;
}

/** Images that would stop reading what they read. Marked ones have no meaning to lose. */
export function lostBy(
  graph: PoolGraph,
  chain: OpenChain,
  { base, top }: Ends,
): readonly PoolImage[] {
  const subchain = chain.layers.slice(base, top + 1).map(({ facts }) => facts.identity);
  return strandedBy(graph, subchain).filter(({ mark }) => mark === null);
}

export function assertSiblings(
  stranded: readonly PoolImage[],
  siblings: CommitRequest['siblings'],
  strategy: CommitStrategy,
): void {
  if (stranded.length === 0 || siblings === 'invalidate') return;
  if (siblings === 'keep' && strategy.keepsSiblings) return;
  const images = stranded.map(({ path }) => path);
  if (siblings === 'keep')
    throw new CommitError(
      'COMMIT_UNSUPPORTED',
      `strategy '${strategy.name}' cannot keep what other images read: ${images.join(', ')}; use --strategy preserve`,
      { images, strategy: strategy.name },
    );
  throw new CommitError(
    'COMMIT_STRANDS',
    `would change what ${images.length === 1 ? 'another image reads' : `${images.length} other images read`}: ${images.join(', ')}. Three ways on: keep what they read (--keep-siblings), accept the loss (--invalidate-siblings), or give them a backing file of their own first (downfold rebase)`,
    { images },
  );
}

/**
 * @throws ChainError `CHAIN_SHARED_DATA` when a file of an open image, its own or its external data file, is another image's of the pool as well:
 * what is written to one would change the other
 */
export function assertOwnDataFiles(graph: PoolGraph, open: readonly ChainLayer[]): void {
  const opened = new Set(open.map(({ facts }) => identityKey(facts.identity)));
  const isOpen = ({ identity }: LayerFacts): boolean => opened.has(identityKey(identity));
  const owners = new Map<string, LayerFacts>();
  for (const image of [
    ...open.map(({ facts }) => facts),
    ...graph.images.filter((one) => !isOpen(one)),
  ])
    for (const file of [image.identity, image.dataFile?.identity]) {
      if (file === undefined) continue;
      const owner = owners.get(identityKey(file));
      if (owner !== undefined && (isOpen(owner) || isOpen(image)))
        throw file === image.identity
          ? sharedDataFile(owner.path, image.path)
          : sharedDataFile(image.path, owner.path);
      owners.set(identityKey(file), image);
    }
}

/** What of the pool could not be read, and is none of the chain. */
export function unreadableBeside(
  graph: PoolGraph,
  chain: OpenChain,
  { formats }: ChainEnvironment,
): readonly Unreadable[] {
  const inChain = new Set(chain.layers.map(({ facts }) => facts.path));
  return unreadableIn(graph, formats)
    .filter(({ path }) => !inChain.has(path))
    .map(({ path, code, message }) => {
      const said = `${path}: `;
      return {
        path,
        code,
        reason: message.startsWith(said) ? message.slice(said.length) : message,
      };
    });
}

export function assertReadable(unreadable: readonly Unreadable[]): void {
  if (unreadable.length === 0) return;
  const list = unreadable.map(({ path, reason }) => `${path} (${reason})`);
  throw new CommitError(
    'COMMIT_UNREADABLE',
    `other images may read through what changes, and cannot be read to find out: ${list.join(', ')}. Three ways on: make them readable (repair them, grant access, or --allow the directory of their backing file), move them out of the pool, or go on at their risk (--ignore-unreadable)`,
    { images: unreadable.map(({ path }) => path), codes: unreadable.map(({ code }) => code) },
  );
}

/** Names of images by identity: those that are open have one, and whoever reads through the chain gets one. */
export function namesOf(
  graph: PoolGraph,
  chain: OpenChain,
  open: readonly ChainLayer[],
): ReadonlyMap<string, NodeId> {
  const nodes = new Map(open.map(({ facts }) => [identityKey(facts.identity), facts.node]));
  for (const { facts } of chain.layers) {
    const image = imageOf(graph, facts.identity);
    for (const { identity } of image === undefined ? [] : dependentsOf(graph, image)) {
      const key = identityKey(identity);
      if (!nodes.has(key)) nodes.set(key, `x${nodes.size}`);
    }
  }
  return nodes;
}

export function named(image: PoolImage, nodes: ReadonlyMap<string, NodeId>): LayerFacts {
  const { backingNode: _, problem: __, ...facts } = image;
  return { ...facts, node: nodes.get(identityKey(image.identity)) as NodeId };
}

export function linksOf(
  chain: OpenChain,
  onto: Onto,
  outsiders: readonly PoolImage[],
  graph: PoolGraph,
  nodes: ReadonlyMap<string, NodeId>,
): Record<NodeId, NodeId | null> {
  const links: Record<NodeId, NodeId | null> = {};
  for (const [index, { facts }] of chain.layers.entries())
    links[facts.node] = chain.layers[index - 1]?.facts.node ?? null;
  for (const [index, { facts }] of onto.layers.entries())
    links[facts.node] = onto.layers[index - 1]?.facts.node ?? onto.backing;
  const nodeOf = (image: PoolImage | undefined): NodeId | null =>
    image === undefined ? null : (nodes.get(identityKey(image.identity)) ?? null);
  const direct = chain.layers.flatMap(({ facts }) => {
    const image = imageOf(graph, facts.identity);
    return image === undefined ? [] : overlaysOf(graph, image);
  });
  for (const image of [...direct, ...outsiders]) {
    const node = nodeOf(image) as NodeId;
    if (node in links) continue;
    links[node] = nodeOf(graph.images.find((one) => one.node === image.backingNode));
  }
  return links;
}

/**
 * Overlays of the chain's images that are not in the chain. A mixed one too: those above it still read right through it, and through what it
 * leaves to the image below.
 */
export function othersOf(
  graph: PoolGraph,
  chain: OpenChain,
  nodes: ReadonlyMap<string, NodeId>,
): { backing: NodeId; facts: LayerFacts }[] {
  const inChain = new Set(chain.layers.map(({ facts }) => identityKey(facts.identity)));
  return chain.layers.flatMap(({ facts }) => {
    const image = imageOf(graph, facts.identity);
    return (image === undefined ? [] : overlaysOf(graph, image))
      .filter(({ mark }) => mark === null || mark.state === 'mixed')
      .filter(({ identity }) => !inChain.has(identityKey(identity)))
      .map((overlay) => ({ backing: facts.node, facts: named(overlay, nodes) }));
  });
}

/** Everyone outside the disk who reads through an image from base to top. */
export function dependentsOn(
  graph: PoolGraph,
  disk: readonly ChainLayer[],
  chain: OpenChain,
  { base, top }: Ends,
): readonly Dependent[] {
  const inChain = new Set(disk.map(({ facts }) => identityKey(facts.identity)));
  const found = new Map<string, Dependent>();
  for (const { facts } of chain.layers.slice(Math.max(0, base), top + 1).reverse()) {
    const image = imageOf(graph, facts.identity);
    for (const { path, identity } of image === undefined ? [] : dependentsOf(graph, image))
      if (!inChain.has(identityKey(identity)) && !found.has(path))
        found.set(path, { path, through: facts.path });
  }
  return [...found.values()];
}
