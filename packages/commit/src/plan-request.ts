import { posix } from 'node:path';
import {
  type ChainEnvironment,
  type ChainLayer,
  factsOf,
  identityKey,
  identityOf,
  type LayerFacts,
  lockImage,
  type NodeId,
  namesProtocol,
  type OpenChain,
  openChain,
  openImageAt,
  openLayer,
  scanPool,
} from '@downfold/chain';
import { isUrl, pathFrom, READER, type StorageBackend } from '@downfold/storage';
import { type ByteLength, byteLength } from '@downfold/units';
import type { BitmapsMode } from './bitmap-fate.ts';
import { planBitmaps } from './bitmaps.ts';
import { CommitError } from './errors.ts';
import { estimateSeconds } from './estimate.ts';
import { abilities } from './execute.ts';
import { assertJournalStays, assertNoJournalOf } from './journals.ts';
import { type Layers, pathDown } from './layers.ts';
import type { LiveDisk } from './live.ts';
import type { EngineParts } from './parts.ts';
import type { CommitPlan, CommitRequest } from './plan.ts';
import { aboveFoundation, assertPlace, chainInUse, withoutFoundation } from './plan-live.ts';
import {
  assertOwnDataFiles,
  assertReadable,
  assertSiblings,
  dependentsOn,
  type Ends,
  linksOf,
  lostBy,
  named,
  namesOf,
  type Onto,
  othersOf,
  unreadableBeside,
} from './plan-pool.ts';
import { sharedWithTarget } from './plan-shares.ts';
import { assertNoSnapshots } from './plan-snapshots.ts';
import type { CommitStrategy } from './strategy.ts';
import { chainView, type ViewFacts } from './view.ts';

/** What a user asks for, by file name. */
export interface PlanRequest {
  /** `commit`: the leaf of the chain. `stream`, `rebase`: the image that receives data. */
  readonly file: string;
  /** Format of the leaf; never guessed. */
  readonly format: string;
  /**
   * `commit`: default: the backing file of top. `stream`: default: none. As a path, or as a layer's overlay names it.
   * `rebase`: the path of the new backing file, which must be there unless `unsafe`; none when undefined.
   */
  readonly base?: string | undefined;
  /** `rebase`: the format of the new backing file; never guessed. */
  readonly baseFormat?: string | undefined;
  /** `rebase`: how the reference is to name the new backing file, relative to the image; a name that does not lead there is not taken. Default: one made of its path. */
  readonly baseName?: string | undefined;
  /** `commit`. Default: `file`. */
  readonly top?: string | undefined;
  readonly strategy: string;
  readonly emptyTop?: boolean;
  /** Directories searched for other images that depend on the chain, beside those that the chain lies in. */
  readonly pools?: readonly string[];
  readonly invalidateSiblings?: boolean;
  readonly keepSiblings?: boolean;
  /** Goes on although the pool has what cannot be read, and may depend on what changes. */
  readonly ignoreUnreadable?: boolean;
  /** See `CommitRequest`. */
  readonly keepUndo?: boolean;
  /** `commit`: see `BitmapsMode`. Default `keep`. */
  readonly bitmaps?: BitmapsMode;
  readonly unsafe?: boolean;
  /** Bytes that a crash may cost to copy again, at most. Default 128 MiB. */
  readonly checkpointBytes?: ByteLength;
}

/** How planning goes about it. */
export interface PlanOptions {
  readonly signal?: AbortSignal;
  /** Reads a sample of what will be copied, to say how long it may take. Default true; without it `estimatedSeconds` is null. */
  readonly estimate?: boolean;
  /** The disk that is in use: its layers are the chain, and are not opened or locked a second time. `file` is one of them; for a commit the active one, or one above top. */
  readonly live?: LiveDisk;
}

const DEFAULT_CHECKPOINT_BYTES = byteLength(128 << 20);

/** Opens the chain, read-only, looks around it, and has the strategy plan. */
export async function planRequest(
  parts: EngineParts,
  environment: ChainEnvironment,
  strategy: CommitStrategy,
  request: PlanRequest,
  { estimate = true, live }: PlanOptions = {},
): Promise<CommitPlan> {
  await using whole =
    live === undefined
      ? await chainOf(request, environment)
      : await chainInUse(live, request.file, strategy, environment);
  const wanted = await endsOf(whole, request, strategy, parts.backend);
  assertPlace(strategy, whole, wanted, live);
  const { chain, ends } =
    live === undefined ? { chain: whole, ends: wanted } : aboveFoundation(whole, wanted, strategy);
  await using onto = await ontoOf(chain, request, strategy, environment);
  const open = [...chain.layers, ...onto.layers];
  const directories = open
    .filter(({ facts }) => !isUrl(facts.path))
    .map(({ facts }) => posix.dirname(facts.path));
  const graph = await scanPool([...directories, ...(request.pools ?? [])], environment, {
    recursive: false,
  });
  assertOwnDataFiles(graph, open);
  const nodes = namesOf(graph, chain, open);
  const outsiders = strategy.operation === 'commit' ? lostBy(graph, chain, ends) : [];
  assertSiblings(outsiders, siblingsOf(request), strategy);
  const unreadable =
    strategy.operation === 'commit' ? unreadableBeside(graph, chain, environment) : [];
  if (request.ignoreUnreadable !== true) assertReadable(unreadable);
  const facts: ViewFacts = {
    chain: chain.layers.map((layer) => layer.facts),
    onto: onto.layers.map((layer) => layer.facts),
    links: linksOf(chain, onto, outsiders, graph, nodes),
    others: othersOf(graph, chain, nodes),
    outsiders: outsiders.map((image) => named(image, nodes)),
    dependents: dependentsOn(graph, live?.layers ?? chain.layers, chain, ends),
    can: abilities({ parts }),
  };
  const others = strategy.keepsSiblings ? facts.others : [];
  await using layers = await lookedAt(facts, open, others, environment, live?.layers ?? []);
  const view = chainView(facts, layers);
  const baseName = await baseNameOf(request, chain, onto, environment);
  const commit = commitRequest(request, strategy, chain, ends, onto, baseName);
  const plan = await strategy.plan(commit, view, environment);
  assertGrows(plan, layers, parts.formats);
  await assertNoSnapshots(plan, layers);
  await assertJournalStays(plan, parts);
  await assertNoJournalOf(plan, live?.layers ?? whole.layers, graph, parts);
  const estimatedSeconds = estimate ? await estimateSeconds(plan, view, layers, parts.clock) : null;
  const told = live === undefined ? plan : withoutFoundation(plan);
  const isOwnFile = (node: NodeId): boolean => {
    const { data, file } = layers.get(node).image;
    return data === file;
  };
  const shares = await sharedWithTarget(told, parts.backend, isOwnFile);
  const bitmaps = await bitmapsFor(request, strategy, chain, ends, live);
  return { ...told, unreadable, pools: graph.directories, ...bitmaps, shares, estimatedSeconds };
}

/** What becomes of the bitmaps of base. @throws CommitError for what else than `keep` cannot be done */
async function bitmapsFor(
  { bitmaps: mode = 'keep', file }: PlanRequest,
  { operation, name }: CommitStrategy,
  { layers }: OpenChain,
  { base, top }: Ends,
  live: LiveDisk | undefined,
): Promise<Pick<CommitPlan, 'bitmaps'>> {
  if (operation !== 'commit') return {};
  if (mode !== 'keep' && live !== undefined)
    throw new CommitError(
      'COMMIT_UNSUPPORTED',
      `${file}: bitmaps beneath a disk in use record; they are not merged or dropped`,
      { image: file, strategy: name },
    );
  return {
    bitmaps: await planBitmaps(mode, layers[base] as ChainLayer, layers.slice(base + 1, top + 1)),
  };
}

/** The chain of the request's image; of one that is only given another name to read through, it alone: the old one may be wrong. */
async function chainOf(
  { file, format, unsafe }: PlanRequest,
  environment: ChainEnvironment,
): Promise<OpenChain> {
  if (unsafe !== true) return openChain(file, format, environment);
  const { backend } = environment;
  const path = await backend.realPath(file);
  await using opened = new AsyncDisposableStack();
  opened.use(await lockImage(path, READER, environment));
  const image = opened.use(await openImageAt(path, format, 'read', environment));
  const layers = [{ facts: await factsOf('l0', path, image, backend), image }];
  const all = opened.move();
  return { layers, [Symbol.asyncDispose]: () => all.disposeAsync() };
}

function commitRequest(
  request: PlanRequest,
  { operation }: CommitStrategy,
  chain: OpenChain,
  { base, top }: Ends,
  onto: Onto,
  baseName: string | null,
): CommitRequest {
  const nodeAt = (index: number): NodeId | null => chain.layers[index]?.facts.node ?? null;
  return {
    operation,
    base: operation === 'rebase' ? onto.node : nodeAt(base),
    ...(onto.absent === undefined ? {} : { absent: onto.absent }),
    ...(baseName === null ? {} : { baseName }),
    top: nodeAt(top) as NodeId,
    emptyTop: request.emptyTop ?? false,
    siblings: siblingsOf(request),
    keepUndo: request.keepUndo ?? false,
    ...(request.bitmaps === undefined ? {} : { bitmaps: request.bitmaps }),
    unsafe: request.unsafe ?? false,
    checkpointBytes: request.checkpointBytes ?? DEFAULT_CHECKPOINT_BYTES,
  };
}

function siblingsOf({ keepSiblings, invalidateSiblings }: PlanRequest): CommitRequest['siblings'] {
  if (keepSiblings === true) return 'keep';
  return invalidateSiblings === true ? 'invalidate' : 'refuse';
}

async function endsOf(
  chain: OpenChain,
  request: PlanRequest,
  { operation }: CommitStrategy,
  backend: StorageBackend,
): Promise<Ends> {
  const leaf = chain.layers.length - 1;
  const name = (index: number): string => (chain.layers[index] as ChainLayer).facts.path;
  if (operation === 'rebase') return { base: -1, top: leaf };
  if (leaf === 0)
    throw new CommitError('COMMIT_BAD_REQUEST', `${name(0)} does not have a backing file`, {
      image: name(0),
    });
  const top =
    operation === 'stream' || request.top === undefined
      ? leaf
      : await findLayer(chain, request.top, backend);
  if (operation === 'stream' && request.base === undefined) return { base: -1, top };
  const base = request.base === undefined ? top - 1 : await findLayer(chain, request.base, backend);
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
  const { path: above } = leaf.facts;
  const paths = isUrl(name)
    ? [name]
    : [pathFrom(process.cwd(), name), pathFrom(posix.dirname(above), name)];
  for (const path of paths) {
    const identity = await identityOf(path, backend);
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

async function ontoOf(
  chain: OpenChain,
  request: PlanRequest,
  { operation }: CommitStrategy,
  environment: ChainEnvironment,
): Promise<Onto> {
  const none = { layers: [], node: null, backing: null, [Symbol.asyncDispose]: async () => {} };
  if (operation !== 'rebase' || request.base === undefined) return none;
  if (request.baseFormat === undefined)
    throw new CommitError(
      'COMMIT_BAD_REQUEST',
      `${request.base}: say the format of the new backing file; it is not guessed`,
      { image: request.base },
    );
  const { unsafe = false, base, baseFormat } = request;
  // nothing of it is looked at: no server is asked
  if (unsafe && (isUrl(base) || (await identityOf(base, environment.backend)) === null))
    return { ...none, absent: await absentFile(base, baseFormat, environment) };
  const onto = await openChain(base, baseFormat, environment, { untilMissing: unsafe });
  const old = new Map(chain.layers.map(({ facts }) => [identityKey(facts.identity), facts]));
  const seenAs = ({ facts }: ChainLayer): LayerFacts | undefined =>
    old.get(identityKey(facts.identity));
  const problem = ontoProblem(onto, seenAs, chain.layers.at(-1) as ChainLayer);
  if (problem !== null) {
    await onto[Symbol.asyncDispose]();
    throw new CommitError('COMMIT_BAD_REQUEST', problem, { image: request.base });
  }
  const shared = onto.layers.findLastIndex((layer) => seenAs(layer) !== undefined);
  const layers = onto.layers.slice(shared + 1).map(({ facts, image }, index) => ({
    facts: { ...facts, node: `n${index}` },
    image,
  }));
  const backing = shared < 0 ? null : (seenAs(onto.layers[shared] as ChainLayer)?.node ?? null);
  return {
    layers,
    node: layers.at(-1)?.facts.node ?? backing,
    backing,
    [Symbol.asyncDispose]: () => onto[Symbol.asyncDispose](),
  };
}

/** The name that the user wants for the new backing file, when it leads there from the image; null: it does not, or nobody wants one. */
async function baseNameOf(
  { base, baseFormat, baseName }: PlanRequest,
  { layers }: OpenChain,
  { absent }: Onto,
  environment: ChainEnvironment,
): Promise<string | null> {
  if (base === undefined || baseName === undefined || namesProtocol(baseName)) return null;
  const { facts } = layers.at(-1) as ChainLayer;
  const at = pathFrom(posix.dirname(facts.path), baseName);
  if (absent !== undefined) {
    const there = await absentFile(at, baseFormat ?? '', environment);
    return there.path === absent.path ? baseName : null;
  }
  const [meant, found] = [
    await identityOf(base, environment.backend),
    await identityOf(at, environment.backend),
  ];
  const same = meant !== null && found !== null && identityKey(meant) === identityKey(found);
  return same ? baseName : null;
}

/** A new backing file that is not there, or not asked for: where it would be, links on the way to it resolved. */
async function absentFile(
  path: string,
  format: string,
  { backend, formats }: ChainEnvironment,
): Promise<NonNullable<CommitRequest['absent']>> {
  if (!formats.some(({ name }) => name === format))
    throw new CommitError('COMMIT_BAD_REQUEST', `${path}: format '${format}' is not known here`, {
      image: path,
    });
  if (isUrl(path)) return { path, format };
  let directory = posix.dirname(path);
  while ((await identityOf(directory, backend)) === null) directory = posix.dirname(directory);
  const real = await backend.realPath(directory);
  return { path: posix.join(real, posix.relative(directory, path)), format };
}

/** Why an image cannot be rebased onto a chain of which it, or the chain below it, may be a part; null: it can. */
function ontoProblem(
  onto: OpenChain,
  seenAs: (layer: ChainLayer) => LayerFacts | undefined,
  leaf: ChainLayer,
): string | null {
  const base = onto.layers.at(-1) as ChainLayer;
  for (const layer of onto.layers) {
    const seen = seenAs(layer);
    if (seen?.node === leaf.facts.node)
      return `${base.facts.path} is or reads through ${leaf.facts.path}`;
    if (seen !== undefined && seen.format !== layer.facts.format)
      return `${seen.path}: is ${layer.facts.format} there, and ${seen.format} below ${leaf.facts.path}; one of them is wrong`;
  }
  return null;
}

/** What a view looks at while a plan is made: the chain, and overlays of it that a strategy may want to write. */
async function lookedAt(
  { links }: ViewFacts,
  open: readonly ChainLayer[],
  others: ViewFacts['others'],
  environment: ChainEnvironment,
  lent: readonly ChainLayer[],
): Promise<Pick<Layers, 'get' | 'path'> & AsyncDisposable> {
  const layers = new Map(open.map((layer) => [layer.facts.node, layer]));
  await using opened = new AsyncDisposableStack();
  for (const { facts } of others) {
    const key = identityKey(facts.identity);
    const used = lent.find(({ image }) => identityKey(image.file.identity) === key);
    if (used !== undefined) {
      layers.set(facts.node, { facts, image: used.image });
      continue;
    }
    opened.use(await lockImage(facts.path, READER, environment));
    const layer = await openLayer(facts, 'read', environment);
    opened.use(layer.image);
    layers.set(facts.node, layer);
  }
  const get = (node: NodeId): ChainLayer => {
    const layer = layers.get(node);
    if (layer !== undefined) return layer;
    throw new CommitError('COMMIT_BAD_REQUEST', `${node} is not open`, { node });
  };
  const own = opened.move();
  return {
    get,
    path: (base, top) => pathDown(links, get, base, top),
    [Symbol.asyncDispose]: () => own.disposeAsync(),
  };
}

/** @throws CommitError `COMMIT_UNSUPPORTED` when base has to grow, and a crash meanwhile would leave it longer and not zero there */
function assertGrows(
  { growBaseTo, images, request }: CommitPlan,
  layers: Pick<Layers, 'get'>,
  formats: ChainEnvironment['formats'],
): void {
  const base = images.find(({ node }) => node === request.base);
  const format = formats.find(({ name }) => name === base?.format);
  if (growBaseTo === null || base === undefined) return;
  if (format?.abilities.has('grow') !== false) {
    // of a device, say, there is no more than there is
    layers.get(base.node).image.assertCanGrow?.(growBaseTo);
    return;
  }
  throw new CommitError(
    'COMMIT_UNSUPPORTED',
    `${base.path}: is smaller than what is committed, and a ${base.format} image does not grow beneath a job; make it larger first: downfold resize`,
    { image: base.path },
  );
}
