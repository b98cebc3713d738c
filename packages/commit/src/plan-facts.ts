import { backingName, type LayerFacts, type NodeId, type OwnedExtent } from '@downfold/chain';
import type { BackingReference } from '@downfold/image';
import type { OperationOptions } from '@downfold/storage';
import { byteLength, type GuestOffset, guestOffset, rangeBetween, rangeEnd } from '@downfold/units';
import { CommitError } from './errors.ts';
import type { CaseBytes, CommitPlan, CommitRequest, Relink } from './plan.ts';
import type { ChainView } from './strategy.ts';

/** Everything about a request that does not depend on the strategy. */
export interface PlanFacts
  extends Pick<
    CommitPlan,
    | 'images'
    | 'chainLength'
    | 'relinks'
    | 'strands'
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
 * Works out sizes (design section 4), relinks and allocation cases of a request in one streaming pass.
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
  return {
    base,
    top,
    intermediates: chain.slice((baseAt as number) + 1, topAt),
    overlays,
    images: [...chain, ...overlays.filter((one) => !chain.includes(one)), ...view.stranded],
    chainLength: chain.length,
    strands: view.stranded.map(({ path }) => path),
    relinks: relinksTo(base, [...overlays, top], view),
    ...sizesOf(base, top, overlays),
    ...(await countCases(base.node, top, view, options)),
  };
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
  const direct = new Set(view.overlaysOf(base.node).map(({ node }) => node));
  const relinks: Relink[] = [];
  for (const overlay of images) {
    if (overlay.backing === null || direct.has(overlay.node)) continue;
    const to: BackingReference = {
      name: backingName(overlay.path, base.path, overlay.backing.name),
      format: base.format,
    };
    relinks.push({ overlay: overlay.node, backing: base.node, from: overlay.backing, to });
  }
  return relinks;
}

/** Counts bytes per allocation case: merges the layers up to top, and beside it those below top. */
async function countCases(
  base: NodeId,
  top: LayerFacts,
  view: ChainView,
  options?: OperationOptions,
): Promise<{ cases: CaseBytes; bytesToCopy: number; bytesToZero: number; runs: number }> {
  const range = rangeBetween(guestOffset(0), top.geometry.virtualSize);
  const topIndex = view.chain.indexOf(top);
  const under = view.chain[topIndex - 1] as LayerFacts;
  const below =
    under.node === base
      ? null
      : new Follower(view.extentsAbove({ base, top: under.node }, range, options));
  let [unallocated, intermediateOnly, several, topOnly] = [0, 0, 0, 0];
  let [bytesToCopy, bytesToZero, runs] = [0, 0, 0];
  for await (const batch of view.extentsAbove({ base, top: top.node }, range, options)) {
    for (const extent of batch) {
      if (extent.owner === null) unallocated += extent.length;
      else if (extent.owner !== topIndex) intermediateOnly += extent.length;
      else {
        const both = below === null ? 0 : await below.allocatedIn(extent.offset, rangeEnd(extent));
        several += both;
        topOnly += extent.length - both;
      }
      if (extent.status === 'zero') bytesToZero += extent.length;
      else if (extent.owner !== null) {
        bytesToCopy += extent.length;
        runs++;
      }
    }
  }
  await below?.close();
  return {
    cases: { unallocated, intermediateOnly, several, topOnly },
    bytesToCopy,
    bytesToZero,
    runs,
  };
}

/** Follows a second stream of extents, for ranges asked for in order. */
class Follower {
  readonly #batches: AsyncIterator<readonly OwnedExtent[]>;
  #batch: readonly OwnedExtent[] = [];
  #next = 0;

  constructor(extents: AsyncIterable<readonly OwnedExtent[]>) {
    this.#batches = extents[Symbol.asyncIterator]();
  }

  /** Bytes of [from, to) that a layer decides. */
  async allocatedIn(from: GuestOffset, to: number): Promise<number> {
    let sum = 0;
    for (;;) {
      const extent = this.#batch[this.#next];
      if (extent === undefined) {
        const { value, done } = await this.#batches.next();
        if (done === true) return sum;
        this.#batch = value;
        this.#next = 0;
        continue;
      }
      if (extent.offset >= to) return sum;
      if (extent.owner !== null)
        sum += Math.max(0, Math.min(to, rangeEnd(extent)) - Math.max(from, extent.offset));
      if (rangeEnd(extent) > to) return sum;
      this.#next++;
    }
  }

  async close(): Promise<void> {
    await this.#batches.return?.();
  }
}

/** Upper bound of what copying writes, in bytes: data, clusters that are cut at both ends of each run, and metadata. */
export function writtenAtMost(
  facts: Pick<PlanFacts, 'bytesToCopy' | 'bytesToZero' | 'runs' | 'base' | 'zeroTail'>,
): number {
  const { clusterSize } = facts.base.geometry;
  const zero = facts.bytesToZero + (facts.zeroTail?.length ?? 0);
  const data =
    facts.bytesToCopy + 2 * clusterSize * (facts.runs + 1) + (clusterSize === 1 ? zero : 0);
  const clusters = Math.ceil((data + zero) / clusterSize);
  return byteLength(data + (clusterSize === 1 ? 0 : clusters * 32 + 64 * clusterSize));
}
