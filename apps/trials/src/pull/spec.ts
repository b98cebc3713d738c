import { type ChainSpec, chainSpec, type LayerSpec } from '../chains/spec.ts';
import { draw } from '../tools/draw.ts';

/** What is done to the leaf of a random chain. All of it follows from the seed. */
export interface PullSpec {
  readonly chain: ChainSpec;
  readonly operation: 'stream' | 'rebase';
  /** `stream`: index of the layer that the chain goes on with; null: none. */
  readonly base: number | null;
  /** `rebase`: the new backing chain, bottom first; empty: `base` of the old chain, or none. */
  readonly onto: readonly LayerSpec[];
}

/** The trial of a seed. */
export function pullSpec(seed: number): PullSpec {
  const chain = { ...chainSpec(seed), sibling: null, bystander: null };
  const from = draw(seed * 31 + 7);
  const leaf = chain.layers.length - 1;
  // pulling from nothing, or from no layer between, is refused: the layer right below the leaf is never base of a stream
  const lower = leaf >= 2 && from.chance(0.6) ? from.integer(leaf - 1) : null;
  const operation = from.chance(0.5) ? 'stream' : 'rebase';
  if (operation === 'stream') return { chain, operation, base: lower, onto: [] };
  if (from.chance(0.3)) return { chain, operation, base: lower, onto: [] };
  const other = chainSpec(seed + 500_000).layers.slice(0, from.between(1, 2));
  const onto = other.map((layer) => ({ ...layer, file: `onto-${layer.file}` }));
  return { chain, operation, base: null, onto };
}
