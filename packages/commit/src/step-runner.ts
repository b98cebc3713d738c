import { type LayerFacts, type NodeId, viewOf } from '@downfold/chain';
import { type CowSource, ImageError } from '@downfold/image';
import { StorageError } from '@downfold/storage';
import { byteLength, guestOffset, hostOffset, splitRange } from '@downfold/units';
import type { Journal } from './journal.ts';
import type { Layers } from './layers.ts';
import type { Position, RunOptions } from './parts.ts';
import type { CommitPlan } from './plan.ts';
import type { Throttle } from './progress.ts';
import type { Cursor, Step } from './step.ts';
import { verifyCommit } from './verify.ts';

/** Bytes of one copy: what a signal or a throttle waits for at most. */
const PIECE_BYTES = 4 << 20;
/** Copies under way at once between two barriers. */
const LANES = 4;

/** What a runner works on. */
export interface RunnerParts {
  readonly layers: Layers;
  readonly journal: Journal;
  readonly plan: CommitPlan;
  readonly options: RunOptions;
  readonly throttle: Throttle;
  readonly from: Position;
  /** ISO date for marks. */
  readonly date: string;
}

/**
 * Turns steps into calls, and owns what must be right once: barriers, the order of journal and images, cancellation.
 * While an epoch is being made durable the next one is copied: a checkpoint's flush is awaited at the next checkpoint or barrier.
 */
export class StepRunner {
  copied: number;
  zeroed: number;
  verified = false;
  readonly unmarked: { readonly image: string; readonly why: string }[] = [];
  readonly #parts: RunnerParts;
  readonly #lanes: Set<Promise<void>> = new Set();
  /** Nodes written since their last flush was called. */
  readonly #dirty: Set<NodeId> = new Set();
  #epoch: Promise<void> = Promise.resolve();
  #failed: { readonly cause: unknown } | null = null;
  #relinked = 0;

  constructor(parts: RunnerParts) {
    this.#parts = parts;
    this.copied = parts.from.copied;
    this.zeroed = parts.from.zeroed;
  }

  async run(step: Step): Promise<void> {
    if (step.do === 'copy') return this.#copy(step);
    if (step.do === 'zero') return this.#zero(step);
    if (step.do === 'checkpoint') return this.#checkpoint(step.cursor);
    await this.#settle();
    if (step.do === 'grow') await this.#grow(step);
    else if (step.do === 'barrier') await this.#flush(step.nodes);
    else if (step.do === 'relink') await this.#relink(step);
    else if (step.do === 'retire') await this.#retire(step.node);
    else await this.#deallocate(step);
  }

  /** Everything is durable when this resolves. */
  async finish(): Promise<void> {
    await this.#settle();
    await this.#flush([...this.#dirty]);
  }

  /** Waits for what is under way after an error; after a cancellation makes what was copied durable too. */
  async stop(cause: unknown): Promise<void> {
    await Promise.allSettled([...this.#lanes, this.#epoch]);
    const { signal } = this.#parts.options;
    if (signal?.aborted === true && cause === signal.reason && this.#failed === null)
      await this.#flush([...this.#dirty]);
  }

  async #copy(step: Extract<Step, { do: 'copy' }>): Promise<void> {
    const from = this.#parts.layers.get(step.from);
    const to = this.#parts.layers.get(step.to);
    const fill = this.#below(step.to);
    for (const piece of splitRange(step.range, PIECE_BYTES)) {
      await this.#admit(piece.length);
      this.#dirty.add(step.to);
      if (step.host !== null) {
        const host = hostOffset(step.host + (piece.offset - step.range.offset));
        await this.#lane(
          () => to.image.copyFrom(from.image.data, host, piece.offset, piece.length, { fill }),
          piece.length,
        );
        continue;
      }
      await this.#lane(async () => {
        const bytes = new Uint8Array(piece.length);
        await from.image.read(piece.offset, bytes, null);
        await to.image.write(piece.offset, bytes, { fill });
      }, piece.length);
    }
  }

  async #zero(step: Extract<Step, { do: 'zero' }>): Promise<void> {
    const { image } = this.#parts.layers.get(step.node);
    const fill = this.#below(step.node);
    await this.#admit(0);
    this.#dirty.add(step.node);
    await this.#lane(async () => {
      await image.writeZeroes(step.range, { fill });
      this.zeroed += step.range.length;
    }, 0);
  }

  /** What `node` reads through to, or null when it is the bottom. */
  #below(node: NodeId): CowSource | null {
    const { chain } = this.#parts.layers;
    const index = chain.findIndex(({ facts }) => facts.node === node);
    return index <= 0 ? null : viewOf(chain, index - 1);
  }

  /** Waits until `bytes` more may be copied; stops here when the job is cancelled or has failed. */
  async #admit(bytes: number): Promise<void> {
    const { options, throttle } = this.#parts;
    options.signal?.throwIfAborted();
    await throttle.pass(bytes, options.signal);
    options.signal?.throwIfAborted();
    while (this.#lanes.size >= LANES) await Promise.race(this.#lanes);
    if (this.#failed !== null) throw this.#failed.cause;
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

  #report(): void {
    const { plan, options } = this.#parts;
    options.onProgress?.({
      phase: 'copy',
      done: this.copied + this.zeroed,
      total: plan.bytesToCopy + plan.bytesToZero,
    });
  }

  /** Waits for all copies and for the epoch before. @throws what one of them failed with */
  async #settle(): Promise<void> {
    this.#parts.options.signal?.throwIfAborted();
    await Promise.all(this.#lanes);
    if (this.#failed !== null) throw this.#failed.cause;
    await this.#epoch;
  }

  /** P4: the images durable, then the cursor. Goes on in the background. */
  async #checkpoint(cursor: Cursor): Promise<void> {
    await this.#settle();
    const nodes = [...this.#dirty];
    const { journal } = this.#parts;
    const record = { type: 'PROGRESS', cursor, copied: this.copied, zeroed: this.zeroed } as const;
    this.#epoch = this.#flush(nodes).then(() => journal.append(record));
    // awaited at the next barrier; until then its failure must not count as unhandled
    this.#epoch.catch((cause: unknown) => {
      this.#failed ??= { cause };
    });
  }

  async #flush(nodes: readonly NodeId[]): Promise<void> {
    for (const node of nodes) this.#dirty.delete(node);
    for (const node of nodes) await this.#parts.layers.get(node).image.flush();
  }

  /** P2. A backing file whose view reaches past the old end would show in the new area: `fill` makes the image hide it. */
  async #grow(step: Extract<Step, { do: 'grow' }>): Promise<void> {
    const { image } = this.#parts.layers.get(step.node);
    if (image.geometry.virtualSize >= step.virtualSize) return;
    await image.resize(step.virtualSize, {
      fill: this.#below(step.node),
      signal: this.#parts.options.signal,
    });
  }

  /** P5 to P8: what will be shown is durable and, when asked, verified; then SWITCH; then the reference. */
  async #relink(step: Extract<Step, { do: 'relink' }>): Promise<void> {
    const { layers, journal, plan, options } = this.#parts;
    await this.#flush([...this.#dirty]);
    if (options.verify === true && !this.verified) await this.#verify();
    options.onProgress?.({ phase: 'relink', done: this.#relinked++, total: plan.relinks.length });
    const { image } = layers.get(step.overlay);
    if (
      image.backing !== null &&
      image.backing.name === step.reference.name &&
      image.backing.format === step.reference.format
    )
      return;
    const from = image.backing ?? { name: '', format: null };
    await journal.append({ type: 'SWITCH', overlay: step.overlay, from, to: step.reference });
    await image.setBacking(step.reference);
  }

  async #verify(): Promise<void> {
    const { layers, plan, options } = this.#parts;
    await verifyCommit(layers.chain, plan, options);
    this.verified = true;
  }

  /** Marks an image that lost its meaning; where that cannot be done the result says so. */
  async #retire(node: NodeId): Promise<void> {
    const { layers, journal, plan, date } = this.#parts;
    const path = (plan.images.find((one) => one.node === node) as LayerFacts).path;
    try {
      const { image } = await layers.reopen(node);
      if (image.mark === null)
        await image.setMark({ state: 'invalid', job: journal.intent.job, date });
    } catch (cause) {
      if (!isUnmarkable(cause)) throw cause;
      this.unmarked.push({ image: path, why: (cause as Error).message });
    }
  }

  /** Only what its content was copied to is durable. @see Step */
  async #deallocate(step: Extract<Step, { do: 'deallocate' }>): Promise<void> {
    const { layers, options } = this.#parts;
    await this.#flush([...this.#dirty]);
    if (options.verify === true && !this.verified) await this.#verify();
    const { image } = layers.get(step.node);
    options.onProgress?.({ phase: 'empty', done: 0, total: step.range.length });
    await image.deallocate(
      { offset: guestOffset(step.range.offset), length: byteLength(step.range.length) },
      options,
    );
    await image.flush();
    options.onProgress?.({ phase: 'empty', done: step.range.length, total: step.range.length });
  }
}

const UNMARKABLE: ReadonlySet<string> = new Set([
  'IMAGE_NO_ROOM',
  'IMAGE_UNSUPPORTED',
  'IMAGE_NEEDS_REPAIR',
  'STORAGE_ACCESS',
]);

function isUnmarkable(cause: unknown): boolean {
  return (
    (cause instanceof ImageError || cause instanceof StorageError) && UNMARKABLE.has(cause.code)
  );
}
