import type { NodeId } from '@downfold/chain';
import type { CowSource, Staging, StagingToken, Undo } from '@downfold/image';
import type { StorageBackend } from '@downfold/storage';
import {
  alignDown,
  type GuestRange,
  guestOffset,
  type HostOffset,
  hostOffset,
  rangeBetween,
  rangeEnd,
} from '@downfold/units';
import type { BackOff } from './back-off.ts';
import { Buffers } from './buffers.ts';
import { copyUnlike } from './copy-unlike.ts';
import { deallocateSame } from './deallocate-same.ts';
import { CommitError, isFailedFlush } from './errors.ts';
import { Gathered } from './gathered.ts';
import type { Journal } from './journal.ts';
import { isLinked, type Layers } from './layers.ts';
import type { ActiveEnding, LiveMirror } from './live.ts';
import { relinkBeneath, whereStillOpen } from './live-steps.ts';
import { retire } from './marks.ts';
import type { Position, RunOptions } from './parts.ts';
import { pivot } from './pivot.ts';
import { type CommitPlan, factsIn, pathOf } from './plan.ts';
import type { Limit } from './progress.ts';
import type { Cursor, Step } from './step.ts';
import type { ChainView } from './strategy.ts';
import { Verifier } from './verifier.ts';
import { type Claim, zeros } from './verify.ts';

/** Bytes of one copy: what a signal or a throttle waits for at most. */
const PIECE_BYTES = 4 << 20;
/** Bytes of one copy that goes through memory: as many lie there as lanes do it at once. */
const BUFFER_BYTES = 1 << 20;
/** Copies under way at once between two barriers. */
const LANES = 4;

/** What a runner works on. */
export interface RunnerParts {
  readonly backend: StorageBackend;
  readonly layers: Layers;
  readonly view: ChainView;
  readonly journal: Journal;
  readonly plan: CommitPlan;
  readonly options: RunOptions;
  readonly throttle: Limit;
  readonly from: Position;
  /** Of a job that ends with a pivot: knows what changed since before its first step. */
  readonly mirror: LiveMirror | null;
  /** Of a job beneath a disk in use. */
  readonly backOff: BackOff | null;
  /** ISO date for marks. */
  readonly date: string;
}

type StepOf<Name extends Step['do']> = Extract<Step, { do: Name }>;
/** What can be written to: an image, or what is staged on it. */
type Target = Pick<Staging, 'write' | 'copyFrom' | 'writeZeroes' | 'flush'>;

/**
 * Turns steps into calls, and owns what must be right once: barriers, the order of journal and images, cancellation.
 * While an epoch is being made durable the next one is copied: a checkpoint's flush is awaited at the next checkpoint or barrier.
 */
export class StepRunner {
  copied: number;
  zeroed: number;
  /** Bytes that an image which was to be emptied keeps: somebody wrote them since the job was interrupted. */
  kept = 0;
  readonly unmarked: { readonly image: string; readonly why: string }[] = [];
  readonly #parts: RunnerParts;
  readonly #lanes: Set<Promise<void>> = new Set();
  /** Nodes written since their last flush was called. */
  readonly #dirty: Set<NodeId> = new Set();
  readonly #stagings: Map<NodeId, Staging> = new Map();
  readonly #verifier: Verifier;
  readonly #gathered: Gathered = new Gathered();
  readonly #buffers: Buffers = new Buffers(BUFFER_BYTES);
  #epoch: Promise<void> = Promise.resolve();
  #failed: { readonly cause: unknown } | null = null;
  #relinked = 0;
  #isComplete: boolean;
  /** All data was in place when this run began: what is deallocated may be newer. */
  readonly #wasComplete: boolean;
  #isSwitching = false;
  #ending: 'complete' | 'cancel' | null = null;
  /** Bytes that were copied again because the disk changed them. */
  #mirrored = 0;

  constructor(parts: RunnerParts) {
    this.#parts = parts;
    this.#verifier = new Verifier(parts, (node) => this.#shown(node));
    this.copied = parts.from.copied;
    this.zeroed = parts.from.zeroed;
    this.#wasComplete = parts.from.cursor?.['complete'] === true;
    this.#isComplete = this.#wasComplete;
  }

  get verified(): boolean {
    return this.#verifier.verified;
  }

  /** How the disk's user ended a pivot; null: there was none. */
  get ending(): 'complete' | 'cancel' | null {
    return this.#ending;
  }

  /**
   * Takes a step to those that wait to be done in one call: a copy of bytes that lie plainly in a file, when there is room beside others
   * to the same image. False: it has to be run.
   */
  gather(step: Step): boolean {
    if (step.do !== 'copy' || step.host === null || step.unlike !== undefined) return false;
    const { data } = this.#parts.layers.get(step.from).image;
    return this.#gathered.add(step, data, step.host, this.#pieceBytes(PIECE_BYTES, step.to));
  }

  async run(step: Step): Promise<void> {
    if (step.do === 'copy') return this.#copy(step);
    if (step.do === 'zero') return this.#zero(step);
    if (step.do === 'checkpoint') return this.#checkpoint(step.cursor);
    await this.#settle();
    switch (step.do) {
      case 'grow':
        return this.#grow(step);
      case 'barrier':
        return this.#flush(step.nodes);
      case 'invalidate':
        return this.#invalidate(step.nodes);
      case 'stage':
        return this.#stage(step);
      case 'publish':
        return this.#publish(step);
      case 'relink':
        return this.#relink(step);
      case 'pivot':
        return this.#pivot(step);
      case 'retire':
        return this.#retire(step.node);
      case 'deallocate':
        return this.#deallocate(step);
    }
  }

  /** Everything is durable when this resolves. */
  async finish(): Promise<void> {
    await this.#settle();
    await this.#flush([...this.#dirty]);
    await this.#verifier.verify();
    this.#reportWhole();
    await this.#beforeSwitch();
  }

  /**
   * Waits for what is under way after an error; after a cancellation makes what was copied durable too. Resolves with what the job ends of: a
   * flush that failed meanwhile outweighs all else, for the system will not say it again.
   */
  async stop(cause: unknown): Promise<unknown> {
    const settled = await Promise.allSettled([...this.#lanes, this.#epoch]);
    const reasons = settled.flatMap((one) => (one.status === 'rejected' ? [one.reason] : []));
    const failures: readonly unknown[] = [cause, this.#failed?.cause, ...reasons];
    const flush = failures.find(isFailedFlush);
    if (flush !== undefined) return flush;
    const { signal } = this.#parts.options;
    if (signal?.aborted !== true || cause !== signal.reason || this.#failed !== null) return cause;
    try {
      await this.#flush([...this.#dirty]);
      return cause;
    } catch (second) {
      return second;
    }
  }

  async #copy(step: StepOf<'copy'>): Promise<void> {
    if (step.unlike !== undefined) return this.#copyUnlike(step.to, step.range, step.unlike);
    if (step.host !== null) return this.#copyPlain(step, step.host);
    const { layers } = this.#parts;
    const from = layers.get(step.from).image;
    const to = this.#target(step.to);
    const fill = layers.below(step.to);
    for (const piece of this.#pieces(step.range, BUFFER_BYTES, step.to, step.from)) {
      await this.#admit(piece.length);
      this.#wrote({ node: step.to, range: piece, from: step.from });
      const copy = (part: GuestRange): Promise<void> =>
        this.#buffers.lend(part.length, async (bytes) => {
          await from.read(part.offset, bytes, null);
          await to.write(part.offset, bytes, { fill });
        });
      await this.#lane(() => this.#inTurn(step.to, piece, copy), piece.length);
    }
  }

  /** Bytes that lie in a file at `host`: gathered with others, in pieces that fit. */
  async #copyPlain({ from, to, range }: StepOf<'copy'>, host: HostOffset): Promise<void> {
    const { data } = this.#parts.layers.get(from).image;
    for (const piece of this.#pieces(range, PIECE_BYTES, to, to)) {
      const at = hostOffset(host + (piece.offset - range.offset));
      const copy = { from, to, range: piece };
      if (this.#gathered.add(copy, data, at, this.#pieceBytes(PIECE_BYTES, to))) continue;
      await this.#copyGathered();
      this.#gathered.add(copy, data, at, piece.length);
    }
  }

  /** The parts of a range that are copied at once, each as long as may be when its turn comes; they end on multiples of that. */
  *#pieces(range: GuestRange, most: number, to: NodeId, from: NodeId): Generator<GuestRange> {
    const end = rangeEnd(range);
    for (let at: number = range.offset; at < end; ) {
      const piece = this.#pieceBytes(most, to, from);
      const stop = Math.min(end, alignDown(at, piece) + piece);
      yield rangeBetween(guestOffset(at), stop);
      at = stop;
    }
  }

  /** Bytes of one copy: `most`, or what the throttle lets pass at once; whole clusters of both in any case, for parts of one are dear. */
  #pieceBytes(most: number, to: NodeId, from: NodeId = to): number {
    const { layers, throttle } = this.#parts;
    const mine = layers.get(to).image.geometry.clusterSize;
    const theirs = from === to ? mine : layers.get(from).image.geometry.clusterSize;
    const cluster = Math.max(mine, theirs);
    return Math.max(cluster, alignDown(Math.min(most, throttle.atOnce ?? most), cluster));
  }

  /** Copies what was gathered, in a lane. */
  async #copyGathered(): Promise<void> {
    const { node, pieces, owners, bytes } = this.#gathered.take();
    if (node === null) return;
    const { layers } = this.#parts;
    const { borrowed } = layers;
    // while those before are copied
    for (const { source, from, length } of pieces) source.willRead?.(from, length);
    await this.#admit(bytes);
    this.#dirty.add(node);
    if (this.#verifier.notes)
      for (const [index, { offset, length }] of pieces.entries())
        this.#verifier.note({ node, range: { offset, length }, from: owners[index] as NodeId });
    const to = this.#target(node);
    const options = { fill: layers.below(node) };
    const isShared = borrowed?.isShared(layers.get(node).image) === true;
    await this.#lane(async () => {
      if (!isShared)
        return layers.holding(node, hullOf(pieces), () => to.copyFrom(pieces, options));
      for (const piece of pieces)
        await this.#inTurn(node, piece, ({ offset, length }) => {
          const from = hostOffset(piece.from + (offset - piece.offset));
          return to.copyFrom([{ source: piece.source, from, offset, length }], options);
        });
    }, bytes);
  }

  /** Runs `work` for a piece of a node; where the guest writes too, for what it left, and not while it does. */
  async #inTurn(
    node: NodeId,
    piece: GuestRange,
    work: (part: GuestRange) => Promise<void>,
  ): Promise<void> {
    const { layers } = this.#parts;
    const { image } = layers.get(node);
    const { borrowed } = layers;
    if (borrowed?.isShared(image) === true) return whereStillOpen(borrowed, image, piece, work);
    await layers.holding(node, piece, () => work(piece));
  }

  async #zero(step: StepOf<'zero'>): Promise<void> {
    const to = this.#target(step.node);
    const fill = this.#parts.layers.below(step.node);
    await this.#admit(0);
    this.#wrote({ node: step.node, range: step.range, from: null });
    const zero = (part: GuestRange): Promise<void> => to.writeZeroes(part, { fill });
    await this.#lane(async () => {
      await this.#inTurn(step.node, step.range, zero);
      this.zeroed += step.range.length;
    }, 0);
  }

  /** Compares before it writes, so it goes one piece after the other. */
  async #copyUnlike(node: NodeId, range: GuestRange, unlike: NodeId | null): Promise<void> {
    const { layers } = this.#parts;
    this.#verifier.note({ node, range, from: node, over: unlike });
    for (const piece of this.#pieces(range, PIECE_BYTES, node, node)) {
      await this.#admit(piece.length);
      this.#dirty.add(node);
      const [now, other] = [layers.view(node), unlike === null ? zeros : layers.view(unlike)];
      const below = layers.below(node);
      await this.#lane(
        () => copyUnlike(layers.get(node).image, piece, now, other, below),
        piece.length,
      );
    }
  }

  #target(node: NodeId): Target {
    return this.#stagings.get(node) ?? this.#parts.layers.get(node).image;
  }

  #wrote(claim: Claim): void {
    this.#dirty.add(claim.node);
    this.#verifier.note(claim);
  }

  /** Waits until `bytes` more may be copied; stops here when the job is cancelled or has failed. */
  async #admit(bytes: number): Promise<void> {
    const { options, throttle } = this.#parts;
    options.signal?.throwIfAborted();
    await this.#giveWay();
    await throttle.pass(bytes, options.signal);
    options.signal?.throwIfAborted();
    while (this.#lanes.size >= LANES) await Promise.race(this.#lanes);
    if (this.#failed !== null) throw this.#failed.cause;
  }

  /** Rests while the guest needs the disk. */
  async #giveWay(): Promise<void> {
    const { backOff, options } = this.#parts;
    if (backOff === null) return;
    const rest = backOff.due;
    if (rest > 0) {
      await Promise.all(this.#lanes);
      await backOff.rest(rest, options.signal);
    }
    backOff.work();
  }

  async #lane(work: () => Promise<void>, bytes: number): Promise<void> {
    const lane = work().then(
      () => {
        this.copied += bytes;
        this.#report();
      },
      (cause: unknown) => {
        this.#failed ??= { cause };
      },
    );
    const done = lane.finally(() => this.#lanes.delete(done));
    this.#lanes.add(done);
  }

  /** More than was planned is moved where the guest writes to what is committed. */
  #report(): void {
    const { plan, options } = this.#parts;
    const done = this.copied + this.zeroed;
    const planned = plan.bytesToCopy + plan.bytesToZero + this.#mirrored;
    options.onProgress?.({ phase: 'copy', done, total: Math.max(planned, done) });
  }

  /** All is in place: what was moved is what there was to move, less than was planned where the guest has overwritten it. */
  #reportWhole(): void {
    const done = this.copied + this.zeroed;
    this.#parts.options.onProgress?.({ phase: 'copy', done, total: done });
  }

  /** Waits for all copies and for the epoch before. @throws what one of them failed with */
  async #settle(): Promise<void> {
    this.#parts.options.signal?.throwIfAborted();
    await this.#copyGathered();
    await Promise.all(this.#lanes);
    if (this.#failed !== null) throw this.#failed.cause;
    await this.#epoch;
  }

  /** P4: the images durable, then the cursor. Goes on in the background. */
  async #checkpoint(cursor: Cursor): Promise<void> {
    await this.#settle();
    if (cursor['complete'] === true) {
      this.#isComplete = true;
      await this.#flush([...this.#dirty]);
      // a job that is stopped here can still be given up: from the record on it cannot
      await this.#verifier.verify();
      await this.#beforeSwitch();
    }
    const nodes = [...this.#dirty];
    const { journal } = this.#parts;
    const stagings: Record<NodeId, StagingToken> = {};
    for (const [node, { token }] of this.#stagings) stagings[node] = token;
    const { copied, zeroed } = this;
    this.#epoch = this.#flush(nodes).then(() =>
      journal.append({ type: 'PROGRESS', cursor, copied, zeroed, stagings }),
    );
    // awaited at the next barrier; until then its failure must not count as unhandled
    this.#epoch.catch((cause: unknown) => {
      this.#failed ??= { cause };
    });
  }

  async #flush(nodes: readonly NodeId[]): Promise<void> {
    for (const node of nodes) this.#dirty.delete(node);
    for (const node of nodes) await this.#target(node).flush();
  }

  /** P2. A backing file whose view reaches past the old end would show in the new area: `fill` makes the image hide it. */
  async #grow({ node, virtualSize }: StepOf<'grow'>): Promise<void> {
    const { layers, options } = this.#parts;
    const { image } = layers.get(node);
    const end = image.geometry.virtualSize;
    if (end >= virtualSize) return;
    await layers.holding(node, rangeBetween(guestOffset(end), virtualSize), () =>
      image.resize(virtualSize, { fill: layers.below(node), signal: options.signal }),
    );
  }

  /** P3: the journal names them before anything that ends their meaning is written. */
  async #invalidate(nodes: readonly NodeId[]): Promise<void> {
    const { journal } = this.#parts;
    const known = invalidated(journal);
    if (nodes.every((node) => known.has(node))) return;
    await journal.append({ type: 'INVALIDATES', nodes });
  }

  async #stage({ node, virtualSize, keepUndo }: StepOf<'stage'>): Promise<void> {
    const { layers, from } = this.#parts;
    const { image } = layers.get(node);
    const end = image.geometry.virtualSize;
    const grown = rangeBetween(guestOffset(Math.min(end, virtualSize)), virtualSize);
    await layers.holding(node, grown, async () => {
      const fill = layers.below(node);
      const staging = await image.stage({
        virtualSize,
        from: from.stagings[node] ?? null,
        fill,
        keepUndo: this.#undo(keepUndo),
      });
      this.#stagings.set(node, staging);
    });
    this.#dirty.add(node);
  }

  async #publish({ node, keepUndo }: StepOf<'publish'>): Promise<void> {
    const { layers, journal } = this.#parts;
    const staging = this.#stagings.get(node);
    if (staging === undefined || staging.published) return;
    await this.#flush([...this.#dirty]);
    await this.#verifier.verify();
    this.#isComplete = true;
    await this.#beforeSwitch();
    await journal.append({ type: 'PUBLISH', node });
    const publish = (): Promise<void> => staging.publish({ keepUndo: this.#undo(keepUndo) });
    const { borrowed } = layers;
    if (borrowed?.has(layers.get(node).image) === true) await borrowed.section('publish', publish);
    else await publish();
    this.#stagings.delete(node);
  }

  #undo(isKept: boolean): Undo | null {
    const { journal, date } = this.#parts;
    return isKept ? { name: `downfold-undo-${journal.intent.job}`, date } : null;
  }

  /** Asks once, when all data is in place and only what others see is left to be switched. */
  async #beforeSwitch(): Promise<void> {
    if (!this.#isComplete || this.#isSwitching) return;
    this.#isSwitching = true;
    this.#reportWhole();
    this.#parts.backOff?.stop();
    await this.#parts.options.beforeSwitch?.();
    this.#parts.options.signal?.throwIfAborted();
  }

  /** C3 to C5; `pivot.ts`. */
  async #pivot({ from, to }: StepOf<'pivot'>): Promise<void> {
    const { layers, journal, plan, backend, options, mirror, throttle, backOff } = this.#parts;
    const { borrowed } = layers;
    if (borrowed === null || mirror === null)
      throw new CommitError('COMMIT_UNSUPPORTED', `${plan.strategy.name} needs a disk in use`);
    await this.#flush([...this.#dirty]);
    await mirror.converge({
      signal: options.signal,
      pass: async (bytes) => {
        await this.#giveWay();
        await throttle.pass(bytes, options.signal);
      },
      copied: (bytes) => {
        this.#mirrored += bytes;
        this.copied += bytes;
        this.#report();
      },
    });
    backOff?.stop();
    this.#reportWhole();
    this.#isComplete = true;
    this.#ending = await pivot({
      borrowed,
      mirror,
      journal,
      backend,
      from: layers.get(from).image,
      to: layers.get(to).image,
      record: { type: 'PIVOT', from, to },
      wasMixed: factsIn(plan, to).mark?.state === 'mixed',
      active: options.active ?? AT_ONCE,
      beforeSwitch: () => this.#beforeSwitch(),
    });
  }

  /** P5 to P8: what will be shown is durable and, when asked, verified; then SWITCH; then the reference. */
  async #relink({ overlay, backing, reference }: StepOf<'relink'>): Promise<void> {
    const { layers, journal, plan, options } = this.#parts;
    await this.#flush([...this.#dirty]);
    await this.#verifier.verify();
    await layers.closeOutsiders();
    await this.#beforeSwitch();
    options.onProgress?.({ phase: 'relink', done: this.#relinked++, total: plan.relinks.length });
    const { image } = layers.get(overlay);
    const isSwitched = isLinked(image, reference);
    if (!isSwitched)
      await journal.append({ type: 'SWITCH', overlay, from: image.backing, to: reference });
    const { borrowed } = layers;
    if (borrowed?.has(image) === true)
      await relinkBeneath(borrowed, {
        overlay: image,
        backing: () => (backing === null ? null : layers.get(backing).image),
        reference,
        below: layers.below(overlay),
        plannedSize: factsIn(plan, overlay).geometry.virtualSize,
      });
    else if (!isSwitched) await image.setBacking(reference);
    layers.link(overlay, backing);
  }

  /** What a node shows, with what is staged on it. */
  #shown(node: NodeId): CowSource {
    const { layers } = this.#parts;
    const staging = this.#stagings.get(node);
    if (staging === undefined) return layers.view(node);
    const below = layers.below(node);
    return (offset, target) => staging.read(offset, target, below);
  }

  /** Marks an image that lost its meaning; where that cannot be done the result says so. */
  async #retire(node: NodeId): Promise<void> {
    const why = await retire(node, this.#parts);
    if (why !== null) this.unmarked.push({ image: pathOf(this.#parts.plan, node), why });
  }

  /** What is deallocated is held elsewhere, durably (the strategy's barrier) and, when asked, verified. */
  async #deallocate({ node, range }: StepOf<'deallocate'>): Promise<void> {
    const { layers, options } = this.#parts;
    await this.#verifier.verify();
    const { image } = layers.get(node);
    const { borrowed } = layers;
    const below = layers.below(node);
    const letGo = async (): Promise<void> => {
      if (!this.#wasComplete || below === null) return image.deallocate(range, options);
      this.kept += await deallocateSame(image, range, below, options);
    };
    // what is read of it meanwhile would be gone
    if (borrowed?.has(image) === true) await borrowed.holding(range, 'requests', letGo);
    else await letGo();
    this.#dirty.add(node);
  }
}

/** The nodes that the journal says may have lost their meaning. */
export function invalidated(journal: Journal): ReadonlySet<NodeId> {
  return new Set(
    journal.records.flatMap((record) => (record.type === 'INVALIDATES' ? record.nodes : [])),
  );
}

/** Nobody asks how a job ends. */
const AT_ONCE: ActiveEnding = { ready: () => undefined, ended: async () => 'complete' };

/** The range from the first byte of pieces to the last one. */
function hullOf(pieces: readonly GuestRange[]): GuestRange {
  const start = Math.min(...pieces.map(({ offset }) => offset));
  return rangeBetween(guestOffset(start), Math.max(...pieces.map(rangeEnd)));
}
