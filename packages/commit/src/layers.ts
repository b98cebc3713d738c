import {
  type ChainEnvironment,
  type ChainLayer,
  factsOf,
  type LayerFacts,
  type NodeId,
  openLayer,
} from '@downfold/chain';
import type { OpenMode, StorageBackend } from '@downfold/storage';
import { CommitError } from './errors.ts';
import type { CommitPlan } from './plan.ts';
import type { Progress } from './progress.ts';

/** The images of a plan, open: what will be written for writing, sources for reading. */
export interface Layers extends AsyncDisposable {
  /** The chain, bottom first. */
  readonly chain: readonly ChainLayer[];
  readonly others: readonly { readonly backing: NodeId; readonly facts: LayerFacts }[];
  readonly stranded: readonly LayerFacts[];
  /** Nodes open for writing. */
  readonly written: ReadonlySet<NodeId>;
  get(node: NodeId): ChainLayer;
  /** Opens an image for writing that was open for reading. */
  reopen(node: NodeId): Promise<ChainLayer>;
  /** @throws CommitError `COMMIT_CHANGED` when an image is not as the plan found it; the message names the difference. */
  assertUnchanged(backend: StorageBackend): Promise<void>;
  /** @throws CommitError `COMMIT_UNCHECKED`, or ImageError `IMAGE_NO_ROOM`, when an image cannot be written safely. */
  preflight(
    plan: CommitPlan,
    report: { readonly onProgress?: (progress: Progress) => void },
    signal?: AbortSignal,
  ): Promise<void>;
}

/** Opens the images of a plan, found by their paths, not by following references: a crash may have switched some already. */
export async function openLayers(plan: CommitPlan, environment: ChainEnvironment): Promise<Layers> {
  const written = new Set<NodeId>([
    plan.request.base,
    ...plan.relinks.map(({ overlay }) => overlay),
    ...(plan.request.emptyTop ? [plan.request.top] : []),
  ]);
  const open = new Map<NodeId, ChainLayer>();
  const close = async (): Promise<void> => {
    for (const { image } of open.values()) await image[Symbol.asyncDispose]();
    open.clear();
  };
  const openAs = async (facts: LayerFacts, mode: OpenMode): Promise<ChainLayer> => {
    const layer = await openLayer(facts, mode, environment);
    open.set(facts.node, layer);
    return layer;
  };
  const relinked = new Set(plan.relinks.map(({ overlay }) => overlay));
  const outside = plan.images.slice(plan.chainLength);
  const stranded = outside.filter(({ node }) => plan.invalidates.some((one) => one.node === node));
  try {
    for (const facts of plan.images)
      if (!stranded.includes(facts))
        await openAs(facts, written.has(facts.node) ? 'write' : 'read');
  } catch (cause) {
    await close();
    throw cause;
  }
  const get = (node: NodeId): ChainLayer => {
    const layer = open.get(node);
    if (layer === undefined)
      throw new CommitError('COMMIT_BAD_REQUEST', `${node} is no image of the plan`, { node });
    return layer;
  };
  return {
    chain: plan.images.slice(0, plan.chainLength).map(({ node }) => get(node)),
    others: outside
      .filter(({ node }) => relinked.has(node) || !stranded.some((one) => one.node === node))
      .map((facts) => ({ backing: plan.request.top, facts })),
    stranded,
    written,
    get,
    reopen: async (node) => {
      const facts = plan.images.find((one) => one.node === node) as LayerFacts;
      await open.get(node)?.image[Symbol.asyncDispose]();
      open.delete(node);
      return openAs(facts, 'write');
    },
    assertUnchanged: async (backend) => {
      for (const { facts, image } of open.values())
        assertSame(facts, await factsOf(facts.node, facts.path, image, backend));
    },
    preflight: async (job, { onProgress }, signal) => {
      let done = 0;
      for (const node of written) {
        onProgress?.({ phase: 'check', done: done++, total: written.size });
        const { image } = get(node);
        const { corruptions } = await image.check({ signal });
        if (corruptions > 0)
          throw new CommitError(
            'COMMIT_UNCHECKED',
            `${image.label}: ${corruptions} errors in its metadata; nothing was written; repair it first: qemu-img check -r all`,
            { image: image.label, corruptions },
          );
      }
      for (const { overlay, to } of job.relinks) await get(overlay).image.assertRoomFor(to);
    },
    [Symbol.asyncDispose]: close,
  };
}

const COMPARED = ['format', 'fingerprint', 'fileLength', 'modified'] as const;

function assertSame(then: LayerFacts, now: LayerFacts): void {
  for (const key of COMPARED)
    if (then[key] !== now[key])
      throw new CommitError(
        'COMMIT_CHANGED',
        `${then.path}: changed since the plan was made (${key} was ${then[key]}, is ${now[key]}); plan again`,
        { image: then.path, what: key },
      );
}
