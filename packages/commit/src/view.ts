import {
  type ChainLayer,
  type LayerFacts,
  type NodeId,
  type OwnedExtent,
  subchainExtents,
} from '@downfold/chain';
import type { Extent } from '@downfold/image';
import type { OperationOptions } from '@downfold/storage';
import type { GuestRange } from '@downfold/units';
import { CommitError } from './errors.ts';
import type { ChainView } from './strategy.ts';

/** What a strategy may look at, over open layers. `others`: overlays of images of the chain that are not in it themselves. */
export function chainView(
  layers: readonly ChainLayer[],
  others: readonly { readonly backing: NodeId; readonly facts: LayerFacts }[],
  stranded: readonly LayerFacts[],
): ChainView {
  const chain = layers.map(({ facts }) => facts);
  const indexOf = (node: NodeId): number => {
    const index = chain.findIndex((facts) => facts.node === node);
    if (index < 0)
      throw new CommitError('COMMIT_BAD_REQUEST', `${node} is no layer of the chain`, { node });
    return index;
  };
  return {
    chain,
    stranded,
    overlaysOf: (node) => [
      ...chain.slice(indexOf(node) + 1, indexOf(node) + 2),
      ...others.filter(({ backing }) => backing === node).map(({ facts }) => facts),
    ],
    extents: (
      node: NodeId,
      range: GuestRange,
      options?: OperationOptions,
    ): AsyncIterable<readonly Extent[]> =>
      (layers[indexOf(node)] as ChainLayer).image.extents(range, options),
    extentsAbove: (subchain, range, options): AsyncIterable<readonly OwnedExtent[]> =>
      subchainExtents(
        layers,
        { base: indexOf(subchain.base), top: indexOf(subchain.top) },
        range,
        options,
      ),
  };
}
