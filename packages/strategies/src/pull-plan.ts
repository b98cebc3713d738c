import type { LayerFacts } from '@downfold/chain';
import {
  type ChainView,
  type CommitPlan,
  type CommitRequest,
  type CommitStrategy,
  headerCost,
  type Relink,
  relinkTo,
  writeCost,
} from '@downfold/commit';

/** What is written into top: bytes of data in separate runs, and zeros made by metadata. */
export interface Pulled {
  readonly bytes: number;
  readonly zeros: number;
  readonly runs: number;
}

/** The plan of a strategy that writes top alone and relinks it: nobody loses anything, all other images are read at most. */
export function pullPlan(
  strategy: CommitStrategy,
  request: CommitRequest,
  view: ChainView,
  top: LayerFacts,
  { bytes, zeros, runs }: Pulled,
): CommitPlan {
  const images = [...view.chain, ...view.onto];
  const base = images.find(({ node }) => node === request.base);
  const others = images.filter((one) => one !== top).map(({ node }) => node);
  const written = writeCost(top, { bytes, zeros, runs }) + headerCost(top.node).written;
  return {
    planVersion: 1,
    strategy: { name: strategy.name, version: strategy.version },
    chosen: null,
    request,
    images,
    chainLength: view.chain.length,
    links: view.links,
    writes: [top.node],
    reads: others,
    // what the user wants to be trusted is not promised
    preserves: request.unsafe ? others : [...others, top.node],
    invalidates: [],
    strands: [],
    dependents: view.dependents,
    unreadable: [],
    pools: [],
    relinks: [relinkOf(request, top, base)],
    growBaseTo: null,
    zeroTail: null,
    cases: { unallocated: 0, intermediateOnly: 0, several: 0, topOnly: 0 },
    bytesToCopy: bytes,
    bytesToZero: zeros,
    bytesWrittenAtMost: written,
    costs: [{ node: top.node, written, freed: 0 }],
    temporaryBytes: 0,
    shares: [],
    estimatedSeconds: null,
  };
}

function relinkOf(
  { absent, baseName }: CommitRequest,
  top: LayerFacts,
  base: LayerFacts | undefined,
): Relink {
  const onto = base ?? (absent === undefined ? null : { ...absent, node: null });
  if (onto === null) return { overlay: top.node, backing: null, from: top.backing, to: null };
  const relink = relinkTo(top, onto);
  return baseName === undefined
    ? relink
    : { ...relink, to: { name: baseName, format: onto.format } };
}
