import { posix } from 'node:path';
import {
  type ChainEnvironment,
  type ChainLayer,
  type ChainPolicy,
  defaultPolicy,
  identityKey,
  imageOf,
  type LayerFacts,
  type OpenChain,
  openChain,
  overlaysOf,
  type PoolGraph,
  type PoolImage,
  scanPool,
  strandedBy,
} from '@downfold/chain';
import { type StorageBackend, StorageError } from '@downfold/storage';
import { type ByteLength, byteLength } from '@downfold/units';
import { CommitError } from './errors.ts';
import { execute } from './execute.ts';
import { type Journal, type JournalOwner, journalPath, openJournal } from './journal.ts';
import type { CommitResult, EngineParts, RunOptions } from './parts.ts';
import type { CommitPlan, CommitRequest } from './plan.ts';
import { resumeJob } from './resume.ts';
import type { CommitStrategy } from './strategy.ts';
import { chainView } from './view.ts';

/** What a user asks for, by file name. */
export interface PlanRequest {
  /** The leaf of the chain. */
  readonly file: string;
  /** Format of the leaf; never guessed. */
  readonly format: string;
  /** Default: the backing file of top. As a path, or as a layer's overlay names it. */
  readonly base?: string | undefined;
  /** Default: `file`. */
  readonly top?: string | undefined;
  readonly strategy: string;
  readonly emptyTop: boolean;
  /** Directories searched for other images that depend on the chain, beside those that the chain lies in. */
  readonly pools?: readonly string[];
  readonly invalidateSiblings?: boolean;
  /** Bytes that a crash may cost to copy again, at most. Default 128 MiB. */
  readonly checkpointBytes?: ByteLength;
}

/** What an interrupted job's journal says. */
export interface JournalSummary {
  readonly job: string;
  readonly plan: CommitPlan;
  readonly owner: JournalOwner;
  /** Bytes copied and durable. */
  readonly copied: number;
}

/** Plans and runs commits. Holds no state of its own: what is under way is in the journal beside the leaf. */
export interface Engine {
  /** Looks, and writes nothing. @throws CommitError, ChainError, ImageError or StorageError */
  plan(request: PlanRequest, options?: { readonly signal?: AbortSignal }): Promise<CommitPlan>;
  /** Does what a plan says. @throws CommitError `COMMIT_CHANGED` when an image is not as the plan found it */
  run(plan: CommitPlan, options?: RunOptions): Promise<CommitResult>;
  /** Goes on with the job whose journal lies beside `file`. @throws CommitError `COMMIT_NO_JOURNAL` */
  resume(file: string, options?: RunOptions): Promise<CommitResult>;
  /** The interrupted job of `file`, or null. */
  journalOf(file: string): Promise<JournalSummary | null>;
}

const DEFAULT_CHECKPOINT_BYTES = byteLength(128 << 20);

/** Assembles an engine. */
export function createEngine(parts: EngineParts): Engine {
  const policy: ChainPolicy = { ...defaultPolicy, ...parts.policy };
  const environment = (signal?: AbortSignal): ChainEnvironment => ({ ...parts, policy, signal });
  return {
    plan: (request, options) => planRequest(parts, environment(options?.signal), request),
    run: async (plan, options = {}) => {
      await assertNoJournal(parts.backend, leafOf(plan));
      return execute({
        parts,
        environment: environment(options.signal),
        plan,
        strategy: strategyOf(parts, plan.strategy),
        options,
      });
    },
    resume: async (file, options = {}) => {
      const path = await parts.backend.realPath(file);
      const journal = await openJournal(parts.backend, journalPath(path));
      if (journal === null)
        throw new CommitError(
          'COMMIT_NO_JOURNAL',
          `${path}: there is no interrupted job to go on with`,
          { image: path },
        );
      return resumeJob(
        parts,
        environment(options.signal),
        journal,
        (plan) => strategyOf(parts, plan.strategy),
        options,
      );
    },
    journalOf: async (file) => {
      await using journal = await openJournal(
        parts.backend,
        journalPath(await parts.backend.realPath(file)),
      );
      return journal === null ? null : summaryOf(journal);
    },
  };
}

function summaryOf(journal: Journal): JournalSummary {
  let { owner } = journal.intent;
  let copied = 0;
  for (const record of journal.records) {
    if (record.type === 'RESUMED') owner = record.owner;
    if (record.type === 'PROGRESS') copied = record.copied;
  }
  return { job: journal.intent.job, plan: journal.intent.plan, owner, copied };
}

/** The leaf of a plan's chain: the image that the user named. */
export function leafOf(plan: CommitPlan): string {
  return (plan.images[plan.chainLength - 1] as LayerFacts).path;
}

function strategyOf(
  parts: EngineParts,
  wanted: { readonly name: string; readonly version?: number },
): CommitStrategy {
  const known = parts.strategies.map(({ name }) => name).join(', ');
  const strategy = parts.strategies.find(({ name }) => name === wanted.name);
  if (strategy !== undefined && (wanted.version ?? strategy.version) === strategy.version)
    return strategy;
  throw new CommitError(
    'COMMIT_UNKNOWN_STRATEGY',
    `strategy '${wanted.name}' (version ${wanted.version ?? 'any'}) is not here; known are ${known}`,
    { strategy: wanted.name },
  );
}

async function assertNoJournal(backend: StorageBackend, leaf: string): Promise<void> {
  await using journal = await openJournal(backend, journalPath(leaf));
  if (journal !== null)
    throw new CommitError(
      'COMMIT_INTERRUPTED_BEFORE',
      `${leaf}: an earlier commit was interrupted; go on with it: downfold resume '${leaf}'`,
      { image: leaf, job: journal.intent.job },
    );
}

async function planRequest(
  parts: EngineParts,
  environment: ChainEnvironment,
  request: PlanRequest,
): Promise<CommitPlan> {
  const strategy = strategyOf(parts, { name: request.strategy });
  await assertNoJournal(parts.backend, await parts.backend.realPath(request.file));
  await using chain = await openChain(request.file, request.format, environment);
  const { base, top } = await endsOf(chain, request, parts.backend);
  const subchain = chain.layers.slice(base, top + 1).map(({ facts }) => facts.identity);
  const directories = chain.layers.map(({ facts }) => posix.dirname(facts.path));
  const graph = await scanPool([...directories, ...(request.pools ?? [])], environment, {
    recursive: false,
  });
  const stranded = strandedBy(graph, subchain);
  if (stranded.length > 0 && request.invalidateSiblings !== true) throw strandedError(stranded);
  const view = chainView(
    chain.layers,
    othersOf(graph, chain),
    stranded.map((image, index) => renamed(image, `s${index}`)),
  );
  const nodeAt = (index: number): string => (chain.layers[index] as ChainLayer).facts.node;
  const commit: CommitRequest = {
    base: nodeAt(base),
    top: nodeAt(top),
    emptyTop: request.emptyTop,
    invalidateSiblings: request.invalidateSiblings ?? false,
    checkpointBytes: request.checkpointBytes ?? DEFAULT_CHECKPOINT_BYTES,
  };
  return await strategy.plan(commit, view, environment);
}

/** Indexes of base and top. */
async function endsOf(
  chain: OpenChain,
  request: PlanRequest,
  backend: StorageBackend,
): Promise<{ base: number; top: number }> {
  const leaf = chain.layers.length - 1;
  const top = request.top === undefined ? leaf : await findLayer(chain, request.top, backend);
  const base = request.base === undefined ? top - 1 : await findLayer(chain, request.base, backend);
  const name = (index: number): string => (chain.layers[index] as ChainLayer).facts.path;
  if (base < 0)
    throw new CommitError('COMMIT_BAD_REQUEST', `${name(top)} does not have a backing file`, {
      image: name(top),
    });
  if (base >= top)
    throw new CommitError('COMMIT_BAD_REQUEST', `${name(base)} does not lie below ${name(top)}`, {
      base: name(base),
      top: name(top),
    });
  return { base, top };
}

/** A layer by the name its overlay gives it, or by any path to its file. */
async function findLayer(chain: OpenChain, name: string, backend: StorageBackend): Promise<number> {
  const { layers } = chain;
  const asWritten = layers.findIndex((_, index) => layers[index + 1]?.facts.backing?.name === name);
  if (asWritten >= 0) return asWritten;
  const leaf = layers.at(-1) as ChainLayer;
  for (const path of [posix.resolve(name), posix.resolve(posix.dirname(leaf.facts.path), name)]) {
    const identity = await backend.facts(path).then(
      (facts) => facts.identity,
      (cause: unknown) => {
        if (cause instanceof StorageError && cause.code === 'STORAGE_NOT_FOUND') return null;
        throw cause;
      },
    );
    const found = layers.findIndex(
      ({ facts }) => identity !== null && identityKey(facts.identity) === identityKey(identity),
    );
    if (found >= 0) return found;
  }
  throw new CommitError(
    'COMMIT_BAD_REQUEST',
    `Did not find '${name}' in the backing chain of '${leaf.facts.path}'`,
    { name, image: leaf.facts.path },
  );
}

/** Overlays of the chain's images that are not in the chain. */
function othersOf(graph: PoolGraph, chain: OpenChain): { backing: string; facts: LayerFacts }[] {
  const inChain = new Set(chain.layers.map(({ facts }) => identityKey(facts.identity)));
  const others: { backing: string; facts: LayerFacts }[] = [];
  for (const { facts } of chain.layers) {
    const image = imageOf(graph, facts.identity);
    for (const overlay of image === undefined ? [] : overlaysOf(graph, image))
      if (!inChain.has(identityKey(overlay.identity)))
        others.push({ backing: facts.node, facts: renamed(overlay, `o${others.length}`) });
  }
  return others;
}

function renamed({ backingNode: _, problem: __, ...facts }: PoolImage, node: string): LayerFacts {
  return { ...facts, node };
}

function strandedError(stranded: readonly PoolImage[]): CommitError {
  const images = stranded.map(({ path }) => path);
  return new CommitError(
    'COMMIT_STRANDS',
    `would change what ${images.length === 1 ? 'another image reads' : `${images.length} other images read`}: ${images.join(', ')}. Flatten or move them, commit into another base, or accept the loss with --invalidate-siblings`,
    { images },
  );
}
