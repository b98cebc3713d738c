import type { NodeId } from '@downfold/chain';
import { type GuestRange, rangeEnd } from '@downfold/units';
import type { CommitPlan } from '../plan.ts';
import type { Cursor, Step } from '../step.ts';
import { contentOf, isData, isPlain, UNALLOCATED } from './cells.ts';
import type { Disks } from './disks.ts';
import { Durability, type Survivors } from './durability.ts';
import { ModelDisk } from './model-disk.ts';
import { ModelImages, type Place } from './model-images.ts';
import type { ModelJournal } from './model-journal.ts';
import { hostSector } from './model-view.ts';
import type { Pool } from './pool.ts';
import type { RuleId } from './rules.ts';
import { SECTOR_BYTES } from './setting.ts';
import { Violation } from './violation.ts';
import { Window } from './window.ts';

type StepOf<Name extends Step['do']> = Extract<Step, { do: Name }>;

/**
 * One run of a job on images of a few sectors, by the contract in `step.ts`. Every member throws Violation where a step breaks a
 * rule by itself.
 */
export class Model {
  /** Bytes copied and zeroed by this run. */
  copied = 0;
  zeroed = 0;
  readonly images: ModelImages;
  readonly disk: ModelDisk;
  readonly #pool: Pool;
  readonly #plan: CommitPlan;
  readonly #disks: Durability;
  readonly #copiedBefore: number;
  /** Stagings that this run began or goes on with. */
  readonly #stagings: Map<number, 'open' | 'published'> = new Map();
  #window: Window = new Window();
  /** What memory showed at the last barrier; null: views show copies at once. */
  #settled: Disks | null;
  /** This run has relinked: images outside the chain that are not relinked themselves are closed. */
  #relinked = false;

  constructor(pool: Pool, plan: CommitPlan, disks: Disks, journal: ModelJournal) {
    this.#pool = pool;
    this.#plan = plan;
    this.#disks = new Durability(disks, journal);
    this.#copiedBefore = journal.copied;
    this.images = new ModelImages(pool, this.#disks);
    this.disk = new ModelDisk(pool, this.#disks, this.images);
    this.#settled = pool.setting.slow ? disks : null;
  }

  /** What memory shows. */
  get now(): Disks {
    return this.#disks.now;
  }

  get journal(): ModelJournal {
    return this.#disks.journal;
  }

  /** What views show. */
  get seen(): Disks {
    return this.#settled ?? this.now;
  }

  /** See `Durability.leastKey`. */
  leastKey(): string {
    return this.#disks.leastKey();
  }

  /** See `Durability.crashes`. */
  crashes(most: number): Generator<Survivors, void, undefined> {
    return this.#disks.crashes(most);
  }

  do(step: Step): void {
    this.#window.next();
    if (step.do === 'copy') this.#copy(step);
    else if (step.do === 'zero') this.#zero(step);
    else {
      this.#settle();
      this.#doInOrder(step);
      if (this.#settled !== null) this.#settled = this.now.copy();
    }
  }

  #doInOrder(step: Exclude<Step, { do: 'copy' | 'zero' }>): void {
    switch (step.do) {
      case 'checkpoint':
        this.#checkpoint(step.cursor);
        break;
      case 'grow':
        this.#grow(step);
        break;
      case 'barrier':
        this.#disks.flush(new Set(step.nodes.map((node) => this.#writable(node))));
        break;
      case 'invalidate':
        this.#invalidate(step.nodes);
        break;
      case 'stage':
        this.#stage(step);
        break;
      case 'publish':
        this.#publish(step.node);
        break;
      case 'relink':
        this.#relink(step);
        break;
      case 'pivot':
        this.#pivot(step);
        break;
      case 'retire':
        this.#retire(step.node);
        break;
      case 'deallocate':
        this.#deallocate(step);
        break;
    }
  }

  /** The job is done: the engine makes all of it durable. */
  finish(): void {
    this.#settle();
    this.#disks.flush(new Set(this.#pool.facts.keys()));
  }

  #copy(step: StepOf<'copy'>): void {
    if (step.unlike === undefined) this.#copyHeld(step);
    else this.#copyUnlike(step, step.unlike);
    this.copied += step.range.length;
  }

  #copyHeld(step: StepOf<'copy'>): void {
    const from = this.#open(step.from);
    const [start, end] = sectorsOf(step.range);
    const contents: number[] = [];
    for (let sector = start; sector < end; sector++) {
      const ahead = (sector - start) * SECTOR_BYTES;
      contents.push(this.#held(from, sector, step.host === null ? null : step.host + ahead));
    }
    this.#window.reads(from, start, end);
    this.images.write(this.#placeOf(step.to, step.range), contents, this.#window);
  }

  /** What an image itself holds at a sector; `host`: where it is said to lie, null when it does not lie plainly. */
  #held(image: number, sector: number, host: number | null): number {
    const inside = sector < this.now.size(image);
    const cell = inside ? this.now.cell(image, sector) : UNALLOCATED;
    const lies = isPlain(cell) ? hostSector(this.#pool, image, sector) * SECTOR_BYTES : null;
    if (isData(cell) && (host === null || host === lies)) return contentOf(cell);
    throw broken(
      'steps/copies-what-is-held',
      `sector ${sector} of ${this.#pool.nodeOf(image)} is taken from byte ${host}, and lies at ${lies}`,
    );
  }

  /** Writes what an image shows where another shows something else, unit by unit. */
  #copyUnlike({ to, range }: StepOf<'copy'>, unlike: NodeId | null): void {
    const { image, row, start, end } = this.#placeOf(to, range);
    const other = unlike === null ? -1 : this.#open(unlike);
    const { unit } = this.#pool.image(image);
    for (let at = start; at < end; ) {
      const stop = Math.min(end, at - (at % unit) + unit);
      const mine = contentsOf(this.now, image, at, stop);
      const theirs = contentsOf(this.now, other, at, stop);
      const place = { image, row, start: at, end: stop };
      if (mine.some((content, index) => content !== theirs[index])) {
        if (mine.every((content) => content === 0)) this.images.writeZeros(place, this.#window);
        else this.images.write(place, mine, this.#window);
      }
      at = stop;
    }
  }

  #zero({ node, range }: StepOf<'zero'>): void {
    this.images.writeZeros(this.#placeOf(node, range), this.#window);
    this.zeroed += range.length;
  }

  /** What comes now is after all copies, and after the checkpoint before. */
  #settle(): void {
    this.#window = new Window();
    this.#disks.settle();
  }

  #checkpoint(cursor: Cursor): void {
    this.#disks.noteLater({
      cursor: JSON.parse(JSON.stringify(cursor)) as Cursor,
      stagings: [...this.#stagings.keys()],
      copied: this.#copiedBefore + this.copied,
    });
  }

  #invalidate(nodes: readonly NodeId[]): void {
    const { invalidates, request } = this.#plan;
    for (const node of nodes)
      if (node !== request.base && !invalidates.some((one) => one.node === node))
        throw broken('plan/names-who-is-lost', `${node} is invalidated; the plan does not say so`);
    const images = nodes.map((node) => this.#pool.indexOf(node));
    this.#disks.note({ invalidated: [...new Set([...this.journal.invalidated, ...images])] });
  }

  #grow({ node, virtualSize }: StepOf<'grow'>): void {
    const image = this.#own(node);
    const size = virtualSize / SECTOR_BYTES;
    if (this.now.size(image) >= size) return;
    this.#disks.harden((disks) => this.images.grow(disks, image, image, size));
  }

  #stage({ node, virtualSize }: StepOf<'stage'>): void {
    const image = this.#own(node);
    if (!this.#pool.can(image, 'stage'))
      throw broken('steps/only-what-formats-can', `${node} cannot be staged on`);
    const known = this.journal.stagings.includes(image);
    this.#stagings.set(image, known && !this.now.hasStaging(image) ? 'published' : 'open');
    if (known) return;
    const size = virtualSize / SECTOR_BYTES;
    this.#disks.harden((disks) => {
      disks.stage(image);
      this.images.grow(disks, image, disks.aside(image), size);
    });
  }

  #publish(node: NodeId): void {
    const image = this.#writable(node);
    const staging = this.#stagings.get(image);
    if (staging === undefined)
      throw broken('steps/only-what-formats-can', `nothing is staged on ${node}`);
    if (staging === 'published') return;
    if (this.#disks.pending.some((write) => write.image === image))
      throw broken('order/publish-after-barrier', `${node}: what was staged may be lost`);
    this.#disks.harden((disks) => disks.publish(image));
    this.#stagings.delete(image);
  }

  #relink({ overlay, backing, reference }: StepOf<'relink'>): void {
    const image = this.#own(overlay);
    const below = backing === null ? -1 : this.#open(backing);
    const planned = this.#plan.relinks.find((one) => one.overlay === overlay);
    if (planned?.backing !== backing || JSON.stringify(planned.to) !== JSON.stringify(reference))
      throw broken('end/linked-as-planned', `the plan has no such relink of ${overlay}`);
    for (const write of this.#disks.pending)
      if (write.image === below || write.image === image)
        throw broken(
          'order/relink-after-barrier',
          `${overlay} is relinked; what was written to ${this.#pool.nodeOf(write.image)} may be lost`,
        );
    this.#relinked = true;
    this.images.changeHeader(image);
    this.#disks.harden((disks) => disks.setLink(image, below));
  }

  #pivot({ from, to }: StepOf<'pivot'>): void {
    const { base, top, setting } = this.#pool;
    if (setting.client === undefined || this.#own(from) !== top || this.#own(to) !== base)
      throw broken(
        'steps/only-what-formats-can',
        `${from} is no disk in use that ${to} can become`,
      );
    if (this.now.size(base) < this.now.size(top))
      throw broken('steps/within-the-disks', `${to} is shorter than the disk`);
    this.disk.pivot();
  }

  /** The engine goes on with a job that has pivoted: only marks are missing. */
  finishPivoted(): void {
    for (const { node } of this.#plan.invalidates)
      this.#disks.harden((disks) => disks.mark(this.#pool.indexOf(node)));
  }

  #retire(node: NodeId): void {
    const image = this.#pool.indexOf(node);
    if (!this.#plan.invalidates.some((one) => one.node === node))
      throw broken('plan/names-who-is-lost', `${node} is retired; the plan does not say so`);
    const isSuperseded = image === this.#pool.top && this.journal.pivoted;
    if (!this.journal.invalidated.includes(image) && !isSuperseded)
      throw broken('order/retire-after-invalidate', `${node} is retired and was not invalidated`);
    this.images.changeHeader(image);
    this.#disks.harden((disks) => disks.mark(image));
  }

  #deallocate({ node, range }: StepOf<'deallocate'>): void {
    const image = this.#own(node);
    if (!this.#pool.can(image, 'deallocate'))
      throw broken('steps/only-what-formats-can', `${node} cannot deallocate`);
    const [start, end] = sectorsOf(range);
    this.images.deallocate({ image, row: image, start, end });
  }

  #open(node: NodeId): number {
    const { chainLength, images, writes, reads, relinks } = this.#plan;
    const at = images.findIndex((one) => one.node === node);
    const inChain = at >= 0 && at < chainLength;
    const isOpen = inChain || writes.includes(node) || reads.includes(node);
    const isClosed = this.#relinked && !inChain && !relinks.some(({ overlay }) => overlay === node);
    if (isOpen && !isClosed) return this.#pool.indexOf(node);
    throw broken('steps/only-planned-images', `${node} is not open`);
  }

  #writable(node: NodeId): number {
    if (this.#plan.writes.includes(node)) return this.#open(node);
    throw broken('steps/only-planned-images', `${node} is not in plan.writes`);
  }

  /** An image that is changed itself: not while there is a staging on it. */
  #own(node: NodeId): number {
    const image = this.#writable(node);
    if (this.#stagings.get(image) !== 'open') return image;
    throw broken('steps/only-what-formats-can', `${node} cannot be changed: it is staged on`);
  }

  /** Where writes to `node` go. */
  #placeOf(node: NodeId, range: GuestRange): Place {
    const image = this.#writable(node);
    const staging = this.#stagings.get(image);
    if (staging === 'published')
      throw broken('steps/only-what-formats-can', `what was staged on ${node} is published`);
    const [start, end] = sectorsOf(range);
    const row = staging === 'open' ? this.now.aside(image) : image;
    return { image, row, start, end };
  }
}

function sectorsOf(range: GuestRange): readonly [number, number] {
  const [start, end] = [range.offset / SECTOR_BYTES, rangeEnd(range) / SECTOR_BYTES];
  if (Number.isInteger(start) && Number.isInteger(end) && end > start) return [start, end];
  throw broken('steps/within-the-disks', `[${start}, ${end}) is no range of whole sectors`);
}

/** What an image (-1: zeros) shows. */
function contentsOf(disks: Disks, image: number, start: number, end: number): number[] {
  const contents: number[] = [];
  for (let sector = start; sector < end; sector++)
    contents.push(image < 0 ? 0 : disks.shows(image, sector));
  return contents;
}

function broken(rule: RuleId, message: string): Violation {
  return new Violation(rule, message);
}
