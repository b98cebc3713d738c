import {
  type ChainEnvironment,
  type ChainLayer,
  factsOf,
  identityKey,
  type LayerFacts,
  openLayer,
} from '@downfold/chain';
import type { Image } from '@downfold/image';
import type { FileIdentity, StorageBackend } from '@downfold/storage';
import {
  alignDown,
  alignUp,
  byteLength,
  type GuestRange,
  guestOffset,
  rangeBetween,
  rangeEnd,
} from '@downfold/units';
import type { LiveDisk, LiveSection, SectionReport } from './live.ts';
import type { RunOptions } from './parts.ts';

/** No byte of the disk: held, it keeps only drained sections out, and so everyone who opens layers in another way. */
export const NO_RANGE: GuestRange = { offset: guestOffset(0), length: byteLength(0) };

/**
 * The layers of a disk in use, as a job borrows them. Those that it writes below the active layer it puts there itself, open for writing, and puts
 * back for reading at the end. Meanwhile the disk's flushes leave them out: whatever such an image alone holds, layers above having dropped it, the
 * job made durable before (its barriers), so that the guest neither waits for it nor fails with it.
 */
export class Borrowed {
  readonly disk: LiveDisk;
  readonly #report: ((report: SectionReport) => void) | undefined;
  /** The active layer when the job came. */
  readonly #activeThen: Image | undefined;
  /** Images that the job put under the disk; what makes the disk flush them again. */
  readonly #raised: Map<Image, () => void> = new Map();

  constructor(disk: LiveDisk, report: ((report: SectionReport) => void) | undefined) {
    this.disk = disk;
    this.#report = report;
    this.#activeThen = disk.layers.at(-1)?.image;
  }

  /** The layer of the disk that is this file; undefined: none is. */
  find(identity: FileIdentity): ChainLayer | undefined {
    return this.disk.layers.find(({ image }) => isFile(image, identity));
  }

  /** What is known now of the layer that is this file; undefined: none is. */
  factsOf(
    identity: FileIdentity,
    { node, path }: Pick<LayerFacts, 'node' | 'path'>,
    backend: StorageBackend,
  ): Promise<LayerFacts | undefined> {
    // sections are kept out: in one another job may put another open file in its place, and close this one
    return this.disk.holding(NO_RANGE, 'changes', async () => {
      const lent = this.find(identity);
      return lent === undefined ? undefined : factsOf(node, path, lent.image, backend);
    });
  }

  /** Whether an image is under the disk now: then it is the disk's, else the job's. */
  has(image: Image): boolean {
    return this.disk.layers.some((layer) => layer.image === image);
  }

  /** Whether this file is the active layer. */
  isActive(identity: FileIdentity): boolean {
    const active = this.disk.layers.at(-1);
    return active !== undefined && isFile(active.image, identity);
  }

  /**
   * Whether the guest may change an image, or did since the job came: the active layer, now or then. Others may be open for writing too, such as one that
   * a snapshot was put on: they are the job's alone.
   */
  isShared(image: Image): boolean {
    return image === this.#activeThen || image === this.disk.layers.at(-1)?.image;
  }

  /** Runs `work` while no request runs, and reports how long that took. */
  async section<T>(
    what: SectionReport['what'],
    work: (section: LiveSection) => Promise<T>,
  ): Promise<T> {
    const { value, drainMs, workMs, held } = await this.disk.drained(work);
    this.#report?.({ what, drainMs, workMs, held });
    return value;
  }

  /**
   * As the disk's, for at least `range`: widened to whole clusters of all layers, since a request that cuts one reads the rest of it from below.
   */
  async holding(
    range: GuestRange,
    without: 'changes' | 'requests',
    work: () => Promise<void>,
  ): Promise<void> {
    for (let unit = 0, done = false; !done; ) {
      unit = largestCluster(this.disk.layers);
      const wide = widened(range, unit, this.disk.size);
      done = await this.disk.holding(wide, without, async (layers) => {
        // larger ones came on top meanwhile
        if (largestCluster(layers) > unit) return false;
        await work();
        return true;
      });
    }
  }

  /** Puts images that are open for writing in the place of those that are the same file. */
  async putInPlace(images: readonly Image[]): Promise<void> {
    if (images.length === 0) return;
    const replaced = await this.#replace((layer) =>
      images.find((image) => isFile(image, layer.image.file.identity)),
    );
    for (const image of images)
      if (this.has(image)) this.#raised.set(image, this.disk.exemptFromFlush(image));
    for (const image of replaced) await image[Symbol.asyncDispose]();
  }

  /** Puts images that are open for reading in the place of those that the job put there; what is no longer under the disk is the job's to close. */
  async putBack(environment: ChainEnvironment): Promise<void> {
    const { policy } = environment;
    // a job that was cancelled must do this too, and what it marked stays below
    const inside = { ...environment, signal: undefined, policy: { ...policy, allowMarked: true } };
    const fresh: Image[] = [];
    try {
      for (const { facts, image } of this.disk.layers.slice(0, -1))
        if (this.#raised.has(image)) {
          // what closing it would write, the fresh one has to see
          await image.bitmaps?.save();
          fresh.push((await openAgain(facts, image, inside)).image);
        }
      if (fresh.length > 0)
        await this.#replace((layer) =>
          this.#raised.has(layer.image)
            ? fresh.find((image) => isFile(image, layer.image.file.identity))
            : undefined,
        );
    } finally {
      for (const image of fresh) if (!this.has(image)) await image[Symbol.asyncDispose]();
      for (const end of this.#raised.values()) end();
      this.#raised.clear();
    }
  }

  /** Resolves with the images that left. */
  async #replace(by: (layer: ChainLayer) => Image | undefined): Promise<readonly Image[]> {
    return this.section('reopen', async (section) => {
      const left: Image[] = [];
      const layers = section.layers.map((layer) => {
        const image = by(layer) ?? layer.image;
        if (image !== layer.image) left.push(layer.image);
        return { facts: layer.facts, image };
      });
      if (left.length > 0) await section.replace(layers);
      return left;
    });
  }
}

/** Its size may have changed since the disk was opened. */
function openAgain(
  facts: LayerFacts,
  { file }: Image,
  environment: ChainEnvironment,
): Promise<ChainLayer> {
  return openLayer({ ...facts, identity: file.identity }, 'read', environment);
}

function isFile(image: Image, identity: FileIdentity): boolean {
  return identityKey(image.file.identity) === identityKey(identity);
}

function largestCluster(layers: readonly ChainLayer[]): number {
  return Math.max(...layers.map(({ image }) => image.geometry.clusterSize));
}

/** The part of the widened range that is on the disk. */
function widened(range: GuestRange, unit: number, size: number): GuestRange {
  const end = Math.min(size, alignUp(rangeEnd(range), unit));
  const start = Math.min(end, alignDown(range.offset, unit));
  return rangeBetween(guestOffset(start), end);
}

/** The layers of the disk in use that a job works beneath. */
export function borrowedBy({
  live,
  onSection,
}: Pick<RunOptions, 'live' | 'onSection'>): Borrowed | null {
  return live === undefined ? null : new Borrowed(live, onSection);
}
