import type { FileIdentity } from '@downfold/storage';
import { identityKey } from './identity.ts';
import type { PoolGraph, PoolImage } from './pool.ts';

/** The image of an identity, or undefined. */
export function imageOf(graph: PoolGraph, identity: FileIdentity): PoolImage | undefined {
  const key = identityKey(identity);
  return graph.images.find((image) => identityKey(image.identity) === key);
}

/** Images that have this one as their backing file. */
export function overlaysOf(graph: PoolGraph, image: PoolImage): readonly PoolImage[] {
  return graph.images.filter((one) => one.backingNode === image.node);
}

/** Images that read through this one, however far above; each once, also in a loop. */
export function dependentsOf(graph: PoolGraph, image: PoolImage): readonly PoolImage[] {
  const all = new Set<PoolImage>();
  const queue = [...overlaysOf(graph, image)];
  for (let next = queue.pop(); next !== undefined; next = queue.pop()) {
    // an image has one backing file: who comes back to itself is the only one met twice
    if (next === image) continue;
    all.add(next);
    queue.push(...overlaysOf(graph, next));
  }
  return [...all];
}

/**
 * Images outside a chain that would stop reading what they read when top is committed into base: everyone who depends on base or on
 * an image between base and top without going through top. Overlays of top are relinked and keep their content.
 * @param subchain identities of base, the images between, and top, bottom first
 */
export function strandedBy(
  graph: PoolGraph,
  subchain: readonly FileIdentity[],
): readonly PoolImage[] {
  const keys = new Set(subchain.map(identityKey));
  const stranded = new Set<PoolImage>();
  for (const identity of subchain.slice(0, -1)) {
    const image = imageOf(graph, identity);
    if (image === undefined) continue;
    for (const overlay of overlaysOf(graph, image)) {
      if (keys.has(identityKey(overlay.identity))) continue;
      stranded.add(overlay);
      for (const dependent of dependentsOf(graph, overlay)) stranded.add(dependent);
    }
  }
  return [...stranded].sort((a, b) => (a.path < b.path ? -1 : 1));
}
