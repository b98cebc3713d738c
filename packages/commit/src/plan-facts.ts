import { backingName, type LayerFacts, type NodeId, type OwnedBatch } from '@downfold/chain';
import { type BackingReference, ExtentCursor, isZeroKind } from '@downfold/image';
import type { OperationOptions } from '@downfold/storage';
import { byteLength, guestOffset, rangeBetween } from '@downfold/units';
import { CommitError } from './errors.ts';
import type { CaseBytes, CommitPlan, CommitRequest, ImageCost, Relink } from './plan.ts';
import type { ChainView, CommitStrategy } from './strategy.ts';

/** Everything about a commit that does not depend on the strategy. */
export interface PlanFacts
  extends Pick<
    CommitPlan,
    | 'images'
    | 'links'
    | 'relinks'
    | 'growBaseTo'
    | 'zeroTail'
    | 'cases'
    | 'bytesToCopy'
    | 'bytesToZero'
  > {
  readonly base: LayerFacts;
  readonly top: LayerFacts;
  readonly intermediates: readonly LayerFacts[];
  /** Images that read through top and are relinked to base. */
  readonly overlays: readonly LayerFacts[];
  /** Separate runs that will be copied. */
  readonly runs: number;
}

/**
 * Works out sizes (design section 4), relinks and allocation cases of a commit in one streaming pass.
 * @throws CommitError `COMMIT_BAD_REQUEST` unless base lies below top in the chain
 */
export async function planFacts(
  request: CommitRequest,
  view: ChainView,
  options?: OperationOptions,
): Promise<PlanFacts> {
  const { chain } = view;
  const [baseAt, topAt] = [request.base, request.top].map((node) =>
    chain.findIndex((one) => one.node === node),
  );
  const [base, top] = [chain[baseAt as number], chain[topAt as number]];
  if (base === undefined || top === undefined || (baseAt as number) >= (topAt as number))
    throw new CommitError('COMMIT_BAD_REQUEST', 'base must lie below top in the chain', {
      base: request.base,
      top: request.top,
    });
  const overlays = view.overlaysOf(top.node);
  if (request.emptyTop && overlays.length > 0)
    throw new CommitError(
      'COMMIT_BAD_REQUEST',
      `${top.path} has overlays: emptying it would change what they read`,
      { image: top.path },
    );
  // who reads base through a mixed image is an outsider; that image itself is none
  const isOutsider = ({ node }: LayerFacts): boolean =>
    view.outsiders.some((one) => one.node === node);
  const readers = view.overlaysOf(base.node).filter((one) => !isOutsider(one));
  const others = [...overlays, ...readers, ...view.outsiders].filter((one) => !chain.includes(one));
  return {
    base,
    top,
    intermediates: chain.slice((baseAt as number) + 1, topAt),
    overlays,
    images: [...chain, ...new Set(others)],
    links: view.links,
    relinks: relinksTo(base, [...overlays, top], view),
    ...sizesOf(base, top, overlays),
    ...(await countCases(base.node, top, view, options)),
  };
}

/** What a strategy adds to the facts. */
export interface PlanParts
  extends Pick<CommitPlan, 'writes' | 'reads' | 'preserves' | 'invalidates' | 'costs'> {
  /** Default 0. */
  readonly temporaryBytes?: number;
  /** Bytes copied and zeroed besides those that the facts count. */
  readonly extraCopy?: number;
  readonly extraZero?: number;
  /** Relinks in the order in which they happen; default: those of the facts. */
  readonly relinks?: readonly Relink[];
}

/** The plan of a commit. */
export function commitPlan(
  strategy: CommitStrategy,
  request: CommitRequest,
  view: ChainView,
  facts: PlanFacts,
  parts: PlanParts,
): CommitPlan {
  const lost = new Set(parts.invalidates.map(({ node }) => node));
  return {
    planVersion: 1,
    strategy: { name: strategy.name, version: strategy.version },
    chosen: null,
    request,
    images: facts.images,
    chainLength: view.chain.length,
    links: facts.links,
    writes: [...new Set(parts.writes)],
    reads: [...new Set(parts.reads)],
    preserves: [...new Set(parts.preserves)],
    invalidates: parts.invalidates,
    strands: view.outsiders.filter(({ node }) => lost.has(node)).map(({ path }) => path),
    dependents: view.dependents,
    unreadable: [],
    pools: [],
    relinks: parts.relinks ?? facts.relinks,
    growBaseTo: facts.growBaseTo,
    zeroTail: facts.zeroTail,
    cases: facts.cases,
    bytesToCopy: facts.bytesToCopy + (parts.extraCopy ?? 0),
    bytesToZero: facts.bytesToZero + (facts.zeroTail?.length ?? 0) + (parts.extraZero ?? 0),
    bytesWrittenAtMost: parts.costs.reduce((sum, { written }) => sum + written, 0),
    costs: oneForEach(parts.costs),
    temporaryBytes: parts.temporaryBytes ?? 0,
    shares: [],
    estimatedSeconds: null,
  };
}

/** What several parts of a job do to one image, added up. */
function oneForEach(costs: readonly ImageCost[]): readonly ImageCost[] {
  const sums = new Map<NodeId, ImageCost>();
  for (const { node, written, freed } of costs) {
    const sum = sums.get(node);
    sums.set(node, {
      node,
      written: written + (sum?.written ?? 0),
      freed: freed + (sum?.freed ?? 0),
    });
  }
  return [...sums.values()];
}

/** Whether a commit changes anything in base. */
export function writesBase(facts: PlanFacts): boolean {
  return (
    facts.bytesToCopy + facts.bytesToZero > 0 ||
    facts.zeroTail !== null ||
    facts.growBaseTo !== null
  );
}

function sizesOf(
  base: LayerFacts,
  top: LayerFacts,
  overlays: readonly LayerFacts[],
): Pick<PlanFacts, 'growBaseTo' | 'zeroTail'> {
  const [baseSize, topSize] = [base.geometry.virtualSize, top.geometry.virtualSize];
  const longest = Math.max(topSize, ...overlays.map(({ geometry }) => geometry.virtualSize));
  // a longer overlay reads zeros past the end of top; from base it would read base's old bytes there
  const tailEnd = Math.min(longest, Math.max(baseSize, topSize));
  return {
    growBaseTo: topSize > baseSize ? topSize : null,
    zeroTail: tailEnd > topSize ? rangeBetween(guestOffset(topSize), tailEnd) : null,
  };
}

/** References that must name base: of everyone who reads through top, and of top itself so that other chains through it stay valid. */
function relinksTo(
  base: LayerFacts,
  images: readonly LayerFacts[],
  view: ChainView,
): readonly Relink[] {
  return images
    .filter((overlay) => overlay.backing !== null && view.links[overlay.node] !== base.node)
    .map((overlay) => relinkTo(overlay, base));
}

/** The relink of an image onto another; a relative name stays relative, and the format is always said. */
export function relinkTo(
  overlay: LayerFacts,
  backing: Pick<LayerFacts, 'path' | 'format'> & { readonly node: NodeId | null },
): Relink {
  const to: BackingReference = {
    name: backingName(overlay.path, backing.path, overlay.backing?.name ?? ''),
    format: backing.format,
  };
  return { overlay: overlay.node, backing: backing.node, from: overlay.backing, to };
}

/** Counts bytes per allocation case: merges the layers up to top, and beside it those below top. */
async function countCases(
  base: NodeId,
  top: LayerFacts,
  view: ChainView,
  options?: OperationOptions,
): Promise<{ cases: CaseBytes; bytesToCopy: number; bytesToZero: number; runs: number }> {
  const range = rangeBetween(guestOffset(0), top.geometry.virtualSize);
  const under = view.links[top.node] as NodeId;
  const below =
    under === base
      ? null
      : new ExtentCursor(view.extentsAbove({ base, top: under }, range, options));
  const cases = { unallocated: 0, intermediateOnly: 0, several: 0, topOnly: 0 };
  let bytesToCopy = 0;
  let bytesToZero = 0;
  let runs = 0;
  for await (const batch of view.extentsAbove({ base, top: top.node }, range, options)) {
    // by column: of a large disk there are millions
    const { starts, ends, kinds, owners } = batch;
    for (let index = 0; index < batch.length; index++) {
      const start = starts[index] as number;
      const end = ends[index] as number;
      const owner = owners[index] ?? null;
      const length = end - start;
      if (owner === null) cases.unallocated += length;
      else if (owner !== top.node) cases.intermediateOnly += length;
      else {
        // a promise for each extent would take longer than all the rest
        const inMemory = below === null ? 0 : allocatedHere(below, start, end);
        const both = inMemory ?? (await allocatedIn(below as Below, start, end));
        cases.several += both;
        cases.topOnly += length - both;
      }
      if (isZeroKind(kinds[index])) bytesToZero += length;
      else if (owner !== null) {
        bytesToCopy += length;
        runs++;
      }
    }
  }
  await below?.close();
  return { cases, bytesToCopy, bytesToZero, runs };
}

type Below = ExtentCursor<OwnedBatch<NodeId>>;

/** As `allocatedIn`, when one extent of those that were read says it; null: it does not. */
function allocatedHere(extents: Below, from: number, to: number): number | null {
  const batch = extents.here(from);
  if (batch === null || (batch.ends[extents.index] as number) < to) return null;
  return batch.owners[extents.index] === null ? 0 : to - from;
}

/** Bytes of [from, to) that a layer decides; asked in ascending order. */
async function allocatedIn(extents: Below, from: number, to: number): Promise<number> {
  let sum = 0;
  for (let at = from; at < to; ) {
    const batch = await extents.to(at);
    if (batch === null) break;
    const stop = Math.min(to, batch.ends[extents.index] as number);
    if (batch.owners[extents.index] !== null) sum += stop - at;
    at = stop;
  }
  return sum;
}

/** What `bytes` of data in `runs` pieces and `zeros` made by metadata cost in the file of an image, at most; bytes. */
export function writeCost(
  image: LayerFacts,
  { bytes, zeros, runs }: { readonly bytes: number; readonly zeros: number; readonly runs: number },
): number {
  const { clusterSize } = image.geometry;
  if (bytes + zeros === 0) return 0;
  // clusters cut at both ends of each run are completed; without clusters zeros are data
  const data = bytes + 2 * clusterSize * (runs + 1) + (clusterSize === 1 ? zeros : 0);
  const clusters = Math.ceil((data + zeros) / clusterSize);
  return byteLength(data + (clusterSize === 1 ? 0 : clusters * 32 + 64 * clusterSize));
}

/** What a new reference costs, or a mark: one header. */
export function headerCost(node: NodeId): ImageCost {
  return { node, written: 1024, freed: 0 };
}

/** What it costs to deallocate all of an image: tables with the entries of what is let go, and refcounts. */
export function emptiedCost({ node, geometry, allocated }: LayerFacts): ImageCost {
  const written = 64 * geometry.clusterSize + Math.ceil(allocated / 1024);
  return { node, written, freed: allocated };
}

/** What the data of a commit costs in base, what each relinked or marked image is written, and what an emptied top gives back. */
export function commonCosts(
  facts: PlanFacts,
  lost: readonly LayerFacts[],
  { emptyTop }: Pick<CommitRequest, 'emptyTop'>,
): readonly ImageCost[] {
  const base = writeCost(facts.base, {
    bytes: facts.bytesToCopy,
    zeros: facts.bytesToZero + (facts.zeroTail?.length ?? 0),
    runs: facts.runs,
  });
  const headers = new Set([
    ...facts.relinks.map(({ overlay }) => overlay),
    ...lost.map(({ node }) => node),
  ]);
  return [
    { node: facts.base.node, written: base, freed: 0 },
    ...[...headers].map(headerCost),
    ...(emptyTop ? [emptiedCost(facts.top)] : []),
  ];
}
