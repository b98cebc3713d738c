import {
  type ChainEnvironment,
  type ChainLayer,
  factsOf,
  type ImageLocks,
  identityKey,
  type LayerFacts,
  type NodeId,
  type OpenChain,
  openLayer,
  viewOf,
} from '@downfold/chain';
import type { CowSource, Image } from '@downfold/image';
import type { OpenMode, StorageBackend } from '@downfold/storage';
import type { GuestRange } from '@downfold/units';
import type { Borrowed } from './borrowed.ts';
import { CommitError } from './errors.ts';
import { hasFoundation, isFoundation, openFoundation } from './foundation.ts';
import { type CommitPlan, factsIn } from './plan.ts';
import type { Progress } from './progress.ts';

/** The images of a plan, open: what will be written for writing, what is read for reading; the lost ones not before they are marked. */
export interface Layers extends AsyncDisposable {
  get(node: NodeId): ChainLayer;
  /** The images from `top` down to `base` (exclusive; null: to the bottom) as they were linked when the plan was made; bottom first. */
  path(base: NodeId | null, top: NodeId): readonly ChainLayer[];
  /** The virtual disk that `node` shows through the links as they are now, at any offset. */
  view(node: NodeId): CowSource;
  /** What `node` reads through to now; null: nothing. */
  below(node: NodeId): CowSource | null;
  /** Notes that `node` has another backing file from now on. */
  link(node: NodeId, backing: NodeId | null): void;
  /** Runs work that may read what lies below `node` in a range, while no other job beneath the same disk changes how that is stored. */
  holding(node: NodeId, range: GuestRange, work: () => Promise<void>): Promise<void>;
  /** The open images that the job writes, and the guest does not. */
  written(): readonly ChainLayer[];
  /** Closes images outside the chain that were written and are not relinked: they are needed no more. */
  closeOutsiders(): Promise<void>;
  /** Opens an image for writing, whether it was open or not. */
  reopen(node: NodeId): Promise<ChainLayer>;
  /** The disk in use whose layers some of them are, and stay; null: nobody uses them. */
  readonly borrowed: Borrowed | null;
  /** Puts those that were opened for writing under the disk in use. They must have been checked. */
  putInPlace(): Promise<void>;
  /** @throws CommitError `COMMIT_CHANGED` when an image is not as the plan found it; the message names the difference. */
  assertUnchanged(backend: StorageBackend): Promise<void>;
  /** The plan's images as they are now: what opening mended is not as the plan found it. */
  factsNow(backend: StorageBackend): Promise<readonly LayerFacts[]>;
  /** @throws CommitError `COMMIT_UNCHECKED`, or ImageError, when an image cannot be written safely, has no room for a name, or cannot grow. */
  preflight(
    report: { readonly onProgress?: (progress: Progress) => void },
    signal?: AbortSignal,
  ): Promise<void>;
}

/** What opening the images of a plan needs. */
export interface LayersParts {
  readonly environment: ChainEnvironment;
  readonly locks: Pick<ImageLocks, 'release'>;
  readonly borrowed: Borrowed | null;
  /** Default: all are there. */
  readonly gone?: ReadonlySet<NodeId>;
}

/**
 * Opens the images of a plan, which are locked, found by their paths, not by following references: a crash may have switched some already. Not those that
 * are `gone`, and those of a disk in use only where they are to be written and are open for reading there. Of `locks`, those of images that are
 * closed early are let go; the rest stays the caller's.
 */
export async function openLayers(
  plan: CommitPlan,
  { environment, locks, borrowed, gone }: LayersParts,
): Promise<Layers> {
  const layers = new OpenLayers(plan, environment, locks, borrowed);
  try {
    await layers.openAll(gone ?? new Set());
    return layers;
  } catch (cause) {
    await layers[Symbol.asyncDispose]();
    throw cause;
  }
}

class OpenLayers implements Layers {
  /** What images were like that opening mended, which the plan does not know. */
  readonly #foundAs: Map<NodeId, Partial<LayerFacts>> = new Map();
  readonly #plan: CommitPlan;
  readonly #environment: ChainEnvironment;
  readonly #locks: Pick<ImageLocks, 'release'>;
  readonly borrowed: Borrowed | null;
  readonly #open: Map<NodeId, ChainLayer> = new Map();
  /** Those that the job opened itself. */
  readonly #own: Set<Image> = new Set();
  /** What lies below the lowest image of the plan, bottom first, where no disk in use has it. */
  #foundation: OpenChain | null = null;
  readonly #links: Map<NodeId, NodeId | null>;
  /** What `view` made for the links as they are. */
  readonly #views: Map<NodeId, CowSource> = new Map();

  constructor(
    plan: CommitPlan,
    environment: ChainEnvironment,
    locks: Pick<ImageLocks, 'release'>,
    borrowed: Borrowed | null,
  ) {
    this.borrowed = borrowed;
    this.#plan = plan;
    this.#environment = environment;
    this.#locks = locks;
    this.#links = new Map(Object.entries(plan.links));
  }

  async openAll(gone: ReadonlySet<NodeId>): Promise<void> {
    const { images, writes, reads, relinks, chainLength } = this.#plan;
    const wanted = (facts: LayerFacts, index: number): boolean =>
      !gone.has(facts.node) &&
      (index < chainLength || writes.includes(facts.node) || reads.includes(facts.node));
    for (const facts of images.filter(wanted)) {
      const { image } = await this.#openAs(facts, writes.includes(facts.node) ? 'write' : 'read');
      const relink = relinks.find(({ overlay }) => overlay === facts.node);
      if (relink !== undefined && isLinked(image, relink.to))
        this.#links.set(facts.node, relink.backing);
    }
    const lowest = this.#open.get((images[0] as LayerFacts).node);
    if (this.borrowed === null && lowest !== undefined)
      this.#foundation = await openFoundation(this.#plan, lowest, this.#environment);
  }

  get(node: NodeId): ChainLayer {
    const layer = this.#open.get(node);
    if (layer !== undefined) return this.#now(layer);
    throw new CommitError('COMMIT_BAD_REQUEST', `${node} is no open image of the plan`, { node });
  }

  path(base: NodeId | null, top: NodeId): readonly ChainLayer[] {
    return pathDown(this.#plan.links, (node) => this.get(node), base, top);
  }

  view(node: NodeId): CowSource {
    // of a disk in use the layers may be others at the next read: another job works on them
    if (this.borrowed !== null)
      return (offset, target) => {
        const layers = this.#downFrom(node);
        return viewOf(layers, layers.length - 1)(offset, target);
      };
    let view = this.#views.get(node);
    if (view === undefined) {
      const layers = this.#downFrom(node);
      view = viewOf(layers, layers.length - 1);
      this.#views.set(node, view);
    }
    return view;
  }

  below(node: NodeId): CowSource | null {
    const backing = this.#links.get(node) ?? null;
    if (backing !== null) return this.view(backing);
    if (this.#under(node).length === 0) return null;
    return (offset, target) => {
      const layers = this.#under(node);
      return viewOf(layers, layers.length - 1)(offset, target);
    };
  }

  async holding(node: NodeId, range: GuestRange, work: () => Promise<void>): Promise<void> {
    if (this.borrowed === null || this.below(node) === null) return work();
    await this.borrowed.holding(range, 'changes', work);
  }

  link(node: NodeId, backing: NodeId | null): void {
    this.#links.set(node, backing);
    this.#views.clear();
  }

  async closeOutsiders(): Promise<void> {
    const { images, chainLength, relinks } = this.#plan;
    for (const { node, path } of images.slice(chainLength)) {
      const layer = this.#open.get(node);
      if (layer?.image.writable !== true || this.#isLent(layer.image)) continue;
      if (relinks.some(({ overlay }) => overlay === node)) continue;
      this.#open.delete(node);
      await layer.image[Symbol.asyncDispose]();
      await this.#locks.release(path);
    }
  }

  async reopen(node: NodeId): Promise<ChainLayer> {
    const facts = factsIn(this.#plan, node);
    const open = this.#open.get(node);
    if (open?.image.writable === true) return open;
    this.#open.delete(node);
    this.#views.clear();
    const isLent = open !== undefined && this.#isLent(open.image);
    if (!isLent) await open?.image[Symbol.asyncDispose]();
    const layer = await this.#openAs(facts, 'write');
    if (isLent) await this.borrowed?.putInPlace([layer.image]);
    return layer;
  }

  written(): readonly ChainLayer[] {
    return [...this.#open.values()]
      .map((layer) => this.#now(layer))
      .filter(({ image }) => image.writable && this.borrowed?.isShared(image) !== true);
  }

  async putInPlace(): Promise<void> {
    const own = [...this.#open.values()].map(({ image }) => image);
    await this.borrowed?.putInPlace(own.filter((image) => image.writable && !this.#isLent(image)));
  }

  async assertUnchanged(backend: StorageBackend): Promise<void> {
    for (const { facts, image } of this.#open.values())
      if (this.borrowed?.isActive(facts.identity) !== true && !this.#isFoundation(facts))
        assertSame(facts, {
          ...(await factsOf(facts.node, facts.path, image, backend)),
          ...this.#foundAs.get(facts.node),
        });
  }

  async factsNow(backend: StorageBackend): Promise<readonly LayerFacts[]> {
    const facts = this.#plan.images.map(async (then) => {
      if (!this.#foundAs.has(then.node)) return then;
      const { image } = this.get(then.node);
      return { ...then, ...(await factsOf(then.node, then.path, image, backend)) };
    });
    return Promise.all(facts);
  }

  async preflight(
    { onProgress }: { readonly onProgress?: (progress: Progress) => void },
    signal?: AbortSignal,
  ): Promise<void> {
    const { writes, relinks } = this.#plan;
    for (const [done, node] of writes.entries()) {
      onProgress?.({ phase: 'check', done, total: writes.length });
      const { image } = this.get(node);
      // what the disk has open for writing was checked when it was opened
      if (this.#isLent(image)) continue;
      const { corruptions } = await image.check({ signal });
      if (corruptions > 0)
        throw new CommitError(
          'COMMIT_UNCHECKED',
          `${image.label}: ${corruptions} errors in its metadata; nothing was written; repair it first: downfold check -r all`,
          { image: image.label, corruptions },
        );
    }
    for (const { overlay, to } of relinks)
      if (to !== null) await this.get(overlay).image.assertRoomFor(to);
    // once the journal says that base is changed it would be too late to find out
    const { growBaseTo, request } = this.#plan;
    if (growBaseTo !== null && request.base !== null)
      this.get(request.base).image.assertCanGrow?.(growBaseTo);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      await this.borrowed?.putBack(this.#environment);
    } finally {
      for (const { facts, image } of this.#open.values())
        if (!this.#isLent(image) && !this.#isFoundation(facts)) await image[Symbol.asyncDispose]();
      this.#open.clear();
      await this.#foundation?.[Symbol.asyncDispose]();
    }
  }

  /** A layer that the disk in use lent, with the image that is its file there now. */
  #now(layer: ChainLayer): ChainLayer {
    if (this.#own.has(layer.image)) return layer;
    const lent = this.borrowed?.find(layer.facts.identity);
    return lent === undefined ? layer : { facts: layer.facts, image: lent.image };
  }

  /** All that a node reads through to, and itself, bottom first. */
  #downFrom(node: NodeId): readonly ChainLayer[] {
    const down: ChainLayer[] = [];
    for (let at: NodeId | null = node; ; ) {
      down.push(this.get(at));
      const next: NodeId | null = this.#links.get(at) ?? null;
      if (next === null) return [...this.#under(at), ...down.reverse()];
      at = next;
    }
  }

  /** What lies below the lowest image of the plan; below any other nothing but what the plan has. */
  #under(node: NodeId): readonly ChainLayer[] {
    const lowest = this.#plan.images[0] as LayerFacts;
    if (node !== lowest.node || !hasFoundation(this.#plan)) return [];
    if (this.borrowed === null) return this.#foundation?.layers ?? [];
    const { layers } = this.borrowed.disk;
    const key = identityKey(this.get(node).image.file.identity);
    const at = layers.findIndex(({ image }) => identityKey(image.file.identity) === key);
    return layers.slice(0, Math.max(0, at));
  }

  /** Of a disk in use it stays the disk's, and may be opened in another way by another job. */
  #isFoundation(facts: LayerFacts): boolean {
    return this.borrowed !== null && isFoundation(this.#plan, facts);
  }

  #isLent(image: Image): boolean {
    return this.borrowed?.has(image) === true;
  }

  async #openAs(facts: LayerFacts, mode: OpenMode): Promise<ChainLayer> {
    const lent = this.borrowed?.find(facts.identity);
    if (lent !== undefined && (mode === 'read' || lent.image.writable)) {
      const layer = { facts, image: lent.image };
      this.#open.set(facts.node, layer);
      return layer;
    }
    const { backend } = this.#environment;
    const before = mode === 'write' ? await backend.facts(facts.path) : null;
    const layer = await openLayer(facts, mode, this.#environment);
    const { mendedFrom } = layer.image;
    if (before !== null && typeof mendedFrom === 'string')
      this.#foundAs.set(facts.node, {
        fingerprint: mendedFrom,
        modified: before.modified,
        ...(before.kind === 'file' ? { fileLength: before.length } : {}),
      });
    this.#own.add(layer.image);
    this.#open.set(facts.node, layer);
    return layer;
  }
}

/** The images from `top` down to `base` (exclusive; null: to the bottom), bottom first. */
export function pathDown(
  links: CommitPlan['links'],
  get: (node: NodeId) => ChainLayer,
  base: NodeId | null,
  top: NodeId,
): readonly ChainLayer[] {
  const down: ChainLayer[] = [];
  for (let node: NodeId | null = top; node !== base; node = links[node] ?? null) {
    if (node === null)
      throw new CommitError('COMMIT_BAD_REQUEST', `${base} does not lie below ${top}`, {
        base,
        top,
      });
    down.push(get(node));
  }
  return down.reverse();
}

/** Whether an image's reference is this one. */
export function isLinked(image: Image, to: Image['backing']): boolean {
  return image.backing?.name === to?.name && image.backing?.format === to?.format;
}

const COMPARED = ['format', 'fingerprint', 'fileLength', 'modified'] as const;
/** Of an external data file: the image itself does not change when clusters that it has are written. */
const COMPARED_DATA = ['length', 'modified'] as const;

function assertSame(then: LayerFacts, now: LayerFacts): void {
  const compare = (what: string, was: unknown, is: unknown): void => {
    if (was === is) return;
    throw new CommitError(
      'COMMIT_CHANGED',
      `${then.path}: changed since the plan was made (${what} was ${was}, is ${is}); plan again`,
      { image: then.path, what },
    );
  };
  for (const key of COMPARED) compare(key, then[key], now[key]);
  for (const key of COMPARED_DATA)
    compare(`data file: ${key}`, then.dataFile?.[key], now.dataFile?.[key]);
}
