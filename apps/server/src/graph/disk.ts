import { type ChainEnvironment, type ChainLayer, readMark } from '@downfold/chain';
import {
  type Claim,
  conflictBetween,
  type LiveDisk,
  type LiveSection,
  type SectionTimes,
} from '@downfold/commit';
import { Device } from '@downfold/device';
import type { BackingReference } from '@downfold/image';
import type { JobType } from '@downfold/job';
import { READER, WRITER } from '@downfold/storage';
import type { ByteLength } from '@downfold/units';
import { ServerError } from '../errors.ts';
import type { DiskLocks } from './locks.ts';
import { type OpenLayers, openForReading, openForWriting } from './open.ts';

/** Whoever uses a disk: an export, or a job. */
export interface DiskUser {
  /** What errors call it: `export 'disk'`. */
  readonly label: string;
  /** Null: it is no job. */
  readonly job: JobUse | null;
}

/** What jobs beneath one disk have to know of each other. */
export interface JobUse {
  readonly id: string;
  readonly type: JobType;
  /** The layers that it works with. */
  readonly claim: Claim;
}

/** What a disk tells its graph: other layers make it up now. */
export type LayersChanged = (layers: readonly ChainLayer[]) => void;

/**
 * A chain of open layers. At rest all of them are open for reading; in use they are a device, and the active one is open for writing
 * once somebody writes to it.
 */
export class Disk implements AsyncDisposable {
  readonly environment: ChainEnvironment;
  readonly locks: DiskLocks;
  /** Who uses it. */
  readonly users: Set<DiskUser> = new Set();
  readonly #changed: LayersChanged;
  #layers: readonly ChainLayer[];
  #device: Device | null = null;

  constructor(
    { layers, locks }: OpenLayers,
    environment: ChainEnvironment,
    changed: LayersChanged,
  ) {
    this.#layers = layers;
    this.locks = locks;
    this.environment = environment;
    this.#changed = changed;
  }

  /** Bottom first; the last one is the active layer. */
  get layers(): readonly ChainLayer[] {
    return this.#device?.layers ?? this.#layers;
  }

  get active(): ChainLayer {
    return this.layers.at(-1) as ChainLayer;
  }

  /** False once a flush failed: the disk takes no more changes. */
  get isSound(): boolean {
    return this.#device?.isSound ?? true;
  }

  get writable(): boolean {
    return this.#device?.readOnly === false;
  }

  /**
   * The disk as a device, for `user` until it is released. For the first one who writes, the active layer is opened for writing, and checked before.
   * @throws ServerError `SERVER_IN_USE`, `SERVER_UNCHECKED`
   */
  async use(user: DiskUser, { writes }: { readonly writes: boolean }): Promise<Device> {
    if (writes && this.#device?.readOnly === true) await this.#takeChanges(this.#device, user);
    this.#device ??= await this.#start(writes);
    this.users.add(user);
    return this.#device;
  }

  release(user: DiskUser): void {
    this.users.delete(user);
  }

  /**
   * Ends the use of a job that is over. A layer below the active one that stayed open for writing for its sake alone, for a snapshot was put on it
   * meanwhile, is opened for reading. When that fails the use is ended all the same.
   */
  async leave(user: DiskUser & { readonly job: JobUse }): Promise<void> {
    try {
      // nobody else writes to them while the claim stands
      for (const layer of this.layers.slice(0, -1))
        if (layer.image.writable && worksWith(user, layer)) await this.#lower(layer);
    } finally {
      this.release(user);
    }
  }

  /**
   * Lets a job work beneath the disk beside those that do already, unless it would touch what one of them does.
   * @param nameOf the node of a path
   * @throws ServerError `SERVER_IN_USE` in QEMU's words, with the node and the job in the way
   */
  admit(user: DiskUser & { readonly job: JobUse }, nameOf: (path: string) => string): void {
    for (const { job } of this.users) {
      const path = job === null ? null : conflictBetween(user.job.claim, job.claim);
      if (job === null || path === null) continue;
      throw new ServerError(
        'SERVER_IN_USE',
        `Node '${nameOf(path)}' is busy: block device is in use by block job: ${job.type} (job '${job.id}')`,
        { image: path, job: job.id },
      );
    }
    this.users.add(user);
  }

  /** @throws ServerError `SERVER_IN_USE` when a user is such, naming it */
  assertUnused(why: string, which: (user: DiskUser) => boolean = () => true): void {
    for (const user of this.users)
      if (which(user))
        throw new ServerError(
          'SERVER_IN_USE',
          `${this.active.facts.path}: ${why}: ${user.label} uses it`,
          { image: this.active.facts.path },
        );
  }

  /** For a job beneath it. @throws ServerError `SERVER_IN_USE` when it is not in use */
  live(): LiveDisk {
    const device = this.#device;
    if (device === null) throw new ServerError('SERVER_IN_USE', 'the disk is not in use');
    return {
      get size() {
        return device.size;
      },
      get layers() {
        return device.layers;
      },
      locks: this.locks,
      latency: device.latency,
      drained: (work) => device.drained((section) => this.#followed(section, work)),
      holding: (range, without, work) => device.holding(range, without, work),
      flush: () => device.flush(),
      exemptFromFlush: (image) => device.exemptFromFlush(image),
      mirror: (target) => device.mirror(target),
    };
  }

  /**
   * Puts `overlay` on top, whose only layer it is, and takes over what it has: a snapshot. What was the active layer is open for reading from then on,
   * unless a job works with it. Resolves with how long requests were held; null: nobody can have made any.
   * @throws ServerError, DeviceError; nothing changed then
   */
  async cover(overlay: Disk): Promise<SectionTimes | null> {
    const active = this.active.facts.path;
    this.assertUnused(
      'its active layer has to stay',
      ({ job }) => job?.claim.consumes.includes(active) === true,
    );
    // what its clients wrote is in its file then
    await overlay.#rest();
    const device = this.#device;
    const { path } = overlay.active.facts;
    if (device === null || device.readOnly) {
      if (device === null) this.#layers = [...this.layers, overlay.active];
      // a job may have changed the layers by the time that requests are held
      const put = (section: LiveSection): Promise<void> =>
        section.replace([...section.layers, overlay.active]);
      const held = (await device?.drained(put)) ?? null;
      this.locks.take(overlay.locks);
      overlay.#layers = [];
      this.#changed(this.layers);
      return held;
    }
    const top = await openForWriting(overlay.active, overlay.locks, this.environment, {
      isActive: true,
    });
    // a job that is about to relink it has it open for writing
    const jobs = [...this.users].some(({ job }) => job?.claim.relinks.includes(active) === true);
    const before = this.active;
    await using opened = new AsyncDisposableStack();
    opened.defer(async () => void (await overlay.locks.change(path, READER)));
    opened.use(top.image);
    const held = await device.drained(async (section) => {
      await section.flush();
      const below = jobs ? before : await openForReading(before, this.environment);
      if (!jobs) opened.use(below.image);
      await section.replace([...section.layers.slice(0, -1), below, top]);
      this.#changed(section.layers);
    });
    opened.move();
    this.locks.take(overlay.locks);
    await overlay.active.image[Symbol.asyncDispose]();
    overlay.#layers = [];
    if (jobs) return held;
    await before.image[Symbol.asyncDispose]();
    await this.locks.change(before.facts.path, READER);
    return held;
  }

  /** Makes a disk that nobody uses larger, durably; the new area reads as zeros. @throws ServerError `SERVER_IN_USE`; DeviceError `DEVICE_UNSUPPORTED` when it would be smaller */
  async resize(size: ByteLength): Promise<void> {
    this.assertUnused('cannot be resized');
    const user: DiskUser = { label: 'resizing', job: null };
    const device = await this.use(user, { writes: true });
    try {
      await device.resize(size);
    } finally {
      this.release(user);
    }
    // what is known of its layers is from when they were opened
    await this.#rest();
  }

  /** Takes the active layer away from a disk at rest; what it stood on is the disk then. The layer is closed. */
  async uncover(): Promise<void> {
    this.assertUnused('is in use');
    await this.#rest();
    const { image, facts } = this.active;
    this.#layers = this.layers.slice(0, -1);
    await using stack = new AsyncDisposableStack();
    stack.defer(() => this.locks.release(facts.path));
    stack.use(image);
  }

  /** Gives all its layers, and its locks, to whoever builds on them. It must be unused. */
  async surrender(locks: DiskLocks): Promise<readonly ChainLayer[]> {
    await this.#rest();
    const { layers } = this;
    this.#layers = [];
    locks.take(this.locks);
    return layers;
  }

  /** Rewrites what the layer at `index` says of its backing file. @throws ServerError `SERVER_IN_USE` while a job works; ImageError `IMAGE_NO_ROOM` */
  async rewriteBacking(index: number, reference: BackingReference): Promise<void> {
    this.assertUnused('a job works with it', ({ job }) => job !== null);
    const layer = this.layers[index] as ChainLayer;
    if (layer.image.writable) {
      // one that could not be brought to rest is its own only writer
      if (this.#device === null) await layer.image.setBacking(reference);
      await this.#device?.drained(async (section) => {
        await section.flush();
        await layer.image.setBacking(reference);
      });
      return;
    }
    const writing = await openForWriting(layer, this.locks, this.environment, { isActive: false });
    try {
      await writing.image.setBacking(reference);
    } finally {
      await writing.image[Symbol.asyncDispose]();
      await this.locks.change(layer.facts.path, READER);
    }
    const next = this.layers.with(index, await openForReading(layer, this.environment));
    if (this.#device === null) this.#layers = next;
    else await this.#device.drained((section) => section.replace(next));
    await layer.image[Symbol.asyncDispose]();
  }

  /** Finishes what runs, flushes, and closes all layers. */
  async [Symbol.asyncDispose](): Promise<void> {
    await using stack = new AsyncDisposableStack();
    stack.use(this.locks);
    for (const { image } of this.layers) stack.use(image);
    await this.#device?.close();
  }

  /** Ends its use, which nobody has any more: all layers are open for reading, and whatever was written is in the files. */
  async #rest(): Promise<void> {
    if (this.#device === null) return;
    await this.#device.close();
    this.#layers = this.#device.layers;
    this.#device = null;
    const { active, environment } = this;
    if (!active.image.writable) return;
    // while the writer is open: what fails can be tried again
    this.#layers = this.#layers.with(-1, await openForReading(active, environment));
    await active.image[Symbol.asyncDispose]();
    await this.locks.change(active.facts.path, READER);
  }

  /** Puts a layer below the active one under the disk open for reading, and closes its writer. */
  async #lower({ facts, image }: ChainLayer): Promise<void> {
    await using opened = new AsyncDisposableStack();
    await this.live().drained(async (section) => {
      await section.flush();
      const at = section.layers.findIndex((layer) => layer.image === image);
      const again = await openForReading(section.layers[at] as ChainLayer, this.environment);
      opened.use(again.image);
      await section.replace(section.layers.with(at, again));
    });
    opened.move();
    await image[Symbol.asyncDispose]();
    await this.locks.change(facts.path, READER);
  }

  /** Puts the active layer open for writing under a disk that was in use for reading only. */
  async #takeChanges(device: Device, user: DiskUser): Promise<void> {
    const { active } = this;
    // it opens the layer for writing by itself
    this.assertUnused(
      'is served for reading only',
      (other) => other !== user && worksWith(other, active),
    );
    const top = await this.#activeForWriting();
    await using opened = new AsyncDisposableStack();
    if (top !== active) {
      opened.defer(async () => void (await this.locks.change(active.facts.path, READER)));
      opened.use(top.image);
    }
    await device.drained((section) =>
      section.replace([...section.layers.slice(0, -1), top], { takesChanges: true }),
    );
    opened.move();
    if (top !== active) await active.image[Symbol.asyncDispose]();
  }

  /** The active layer, which nobody changes yet, open for writing. */
  async #activeForWriting(): Promise<ChainLayer> {
    const { active, environment } = this;
    if (!active.image.writable)
      return openForWriting(active, this.locks, environment, { isActive: true });
    // one that could not be brought to rest is its own only writer
    await this.locks.change(active.facts.path, WRITER);
    return active;
  }

  async #start(writes: boolean): Promise<Device> {
    const { active, environment } = this;
    const mark = await readMark(active.image, environment.backend);
    if (mark !== null && !environment.policy.allowMarked)
      throw new ServerError(
        'SERVER_SUPERSEDED',
        `${active.facts.path}: is marked ${mark.state} since ${mark.date} by job ${mark.job}: it is no disk`,
        { image: active.facts.path },
      );
    if (writes) {
      const top = await this.#activeForWriting();
      if (top !== active) await active.image[Symbol.asyncDispose]();
      this.#layers = this.#layers.with(-1, top);
    }
    return new Device({ layers: this.#layers, readOnly: !writes });
  }

  async #followed<T>(section: LiveSection, work: (section: LiveSection) => Promise<T>): Promise<T> {
    try {
      return await work(section);
    } finally {
      this.#changed(section.layers);
    }
  }
}

/** Whether it is a job that writes to a layer, or takes it out of the disk. */
export function worksWith({ job }: DiskUser, { facts: { path } }: ChainLayer): boolean {
  return job !== null && [...job.claim.consumes, ...job.claim.relinks].includes(path);
}
