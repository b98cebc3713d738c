import {
  type ChainLayer,
  type LayerFacts,
  mergedExtents,
  type NodeId,
  type OwnedBatch,
  OwnedList,
} from '@downfold/chain';
import { type ExtentsOptions, WORTHWHILE_HOLE_BYTES } from '@downfold/image';
import { type GuestRange, rangeBetween } from '@downfold/units';
import { CommitError } from './errors.ts';
import type { Layers } from './layers.ts';
import type { CommitPlan, Dependent } from './plan.ts';
import type { ChainView } from './strategy.ts';

/** What a view knows of images without asking them. */
export interface ViewFacts extends Pick<ChainView, 'chain' | 'onto' | 'links' | 'outsiders'> {
  /** Images beside the chain that have a layer of it as their backing file. */
  readonly others: readonly { readonly backing: NodeId; readonly facts: LayerFacts }[];
  readonly dependents: readonly Dependent[];
  /** Whether a format has an ability. */
  readonly can: (format: string, ability: Parameters<ChainView['can']>[1]) => boolean;
}

/** A strategy's view over open images. */
export function chainView(facts: ViewFacts, layers: Pick<Layers, 'get' | 'path'>): ChainView {
  const { chain, onto, links, outsiders, dependents, others } = facts;
  const all = new Map(
    [...chain, ...onto, ...others.map((one) => one.facts)].map((one) => [one.node, one]),
  );
  // what is copied is whole clusters, of whichever image: a hole that cuts one saves nothing
  const holes = Math.max(
    WORTHWHILE_HOLE_BYTES,
    ...[...all.values()].map(({ geometry }) => geometry.clusterSize),
  );
  return {
    chain,
    onto,
    links,
    outsiders,
    dependents,
    overlaysOf: (node) => [
      ...chain.filter((one) => links[one.node] === node),
      ...others.filter(({ backing }) => backing === node).map((one) => one.facts),
    ],
    can: (node, ability) => {
      const format = all.get(node)?.format;
      if (format === undefined)
        throw new CommitError('COMMIT_BAD_REQUEST', `${node} is no image of the plan`, { node });
      return facts.can(format, ability);
    },
    extents: (node, range, options) => layers.get(node).image.extents(range, { ...options, holes }),
    extentsAbove: ({ base, top }, range, options) =>
      merged(layers.path(base, top), range, { ...options, holes }),
  };
}

async function* merged(
  layers: readonly ChainLayer[],
  range: GuestRange,
  options?: ExtentsOptions,
): AsyncGenerator<OwnedBatch<NodeId>, void, undefined> {
  if (layers.length === 0) {
    yield OwnedList.ofOwned<NodeId>([{ ...range, status: 'unallocated', owner: null }]);
    return;
  }
  const owned = layers.map((layer) => ({ layer, owner: layer.facts.node }));
  yield* mergedExtents(owned, range, options);
}

/** What a view of a plan's images knows, from the plan alone. */
export function factsOfPlan(plan: CommitPlan, can: ViewFacts['can']): ViewFacts {
  const outside = plan.images.slice(plan.chainLength);
  const onto = plan.request.operation === 'rebase' ? outside : [];
  return {
    chain: plan.images.slice(0, plan.chainLength),
    onto,
    links: plan.links,
    others: outside
      .filter((one) => !onto.includes(one))
      .flatMap((one) => {
        const backing = plan.links[one.node];
        return backing == null ? [] : [{ backing, facts: one }];
      }),
    outsiders:
      onto.length > 0
        ? []
        : outside.filter(({ node }) => !readsThrough(plan, node, plan.request.top)),
    dependents: plan.dependents,
    can,
  };
}

function readsThrough({ links }: CommitPlan, node: NodeId, through: NodeId): boolean {
  for (let at: NodeId | null = node; at !== null; at = links[at] ?? null)
    if (at === through) return true;
  return false;
}

/** All of a virtual disk. */
export function wholeOf(facts: LayerFacts): GuestRange {
  return rangeBetween(0 as GuestRange['offset'], facts.geometry.virtualSize);
}
