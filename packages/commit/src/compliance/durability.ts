import type { Disks, Write } from './disks.ts';
import { journalKey, type ModelJournal } from './model-journal.ts';

/** What a crash leaves. */
export interface Survivors {
  readonly disks: Disks;
  readonly journal: ModelJournal;
  /** What was written and is lost. */
  readonly lost: readonly Write[];
  /** How many writes could be lost. */
  readonly pending: number;
  /** All, none, one, or all but one of them is. */
  readonly plain: boolean;
}

/** A checkpoint on its way: it becomes durable together with the writes before it. */
interface Epoch {
  readonly journal: ModelJournal;
  /** How many of the pending writes those are. */
  readonly covers: number;
}

/** What memory shows, what is durable, and what a crash can leave between the two. */
export class Durability {
  /** What memory shows: what strategies see, what copies read, what a killed process leaves. */
  readonly now: Disks;
  journal: ModelJournal;
  readonly #durable: Disks;
  #pending: readonly Write[] = [];
  #epoch: Epoch | null = null;
  /** How many of the pending writes have had their losses told, without and with the epoch; -1: none, not even that of no write. */
  #told = { plain: -1, epoch: -1 };
  /** Of what is durable; null: it changed since. */
  #leastKey: string | null = null;

  constructor(disks: Disks, journal: ModelJournal) {
    this.now = disks.copy();
    this.#durable = disks.copy();
    this.journal = journal;
  }

  get pending(): readonly Write[] {
    return this.#pending;
  }

  /** Seen at once, and durable later. */
  write(write: Write): void {
    this.now.apply(write);
    this.#pending = [...this.#pending, write];
  }

  /** Durable at once: every loss of what is pending leads to something new. */
  harden(change: (disks: Disks) => void): void {
    change(this.now);
    change(this.#durable);
    this.#leastKey = null;
    this.#told = { plain: -1, epoch: -1 };
  }

  /** A record in the journal, durable at once. */
  note(record: Partial<ModelJournal>): void {
    this.journal = { ...this.journal, ...record };
    this.#leastKey = null;
    this.#told = { plain: -1, epoch: -1 };
  }

  /** A record in the journal that becomes durable with all writes so far, at the latest when `settle` is called. */
  noteLater(record: Partial<ModelJournal>): void {
    this.#epoch = { journal: { ...this.journal, ...record }, covers: this.#pending.length };
    this.#told = { ...this.#told, epoch: -1 };
  }

  /** Waits for the epoch on its way. All that a crash can leave from here on it could leave before. */
  settle(): void {
    if (this.#epoch === null) return;
    const { covers, journal } = this.#epoch;
    for (const write of this.#pending.slice(0, covers)) this.#durable.apply(write);
    this.#pending = this.#pending.slice(covers);
    this.journal = journal;
    this.#epoch = null;
    this.#leastKey = null;
    this.#told = { plain: this.#pending.length, epoch: -1 };
  }

  /** Makes the writes of these images durable. What a crash can leave then it could leave before. */
  flush(images: ReadonlySet<number>): void {
    const isFlushed = ({ image }: Write): boolean => images.has(image);
    for (const write of this.#pending.filter(isFlushed)) this.#durable.apply(write);
    this.#pending = this.#pending.filter((write) => !isFlushed(write));
    this.#leastKey = null;
    this.#told = { plain: this.#pending.length, epoch: -1 };
  }

  /** The key of what a crash leaves when nothing survives that may be lost. */
  leastKey(): string {
    this.#leastKey ??= stateKey(reclaimed(this.#durable.copy(), this.journal), this.journal);
    return this.#leastKey;
  }

  /**
   * What a crash can leave now and could not leave when this was asked before, to be asked after every step: any set of the pending writes is lost. With more than
   * `most` of them only none, all, each alone and all but each.
   */
  *crashes(most: number): Generator<Survivors, void, undefined> {
    const { plain, epoch } = this.#told;
    const count = this.#pending.length;
    yield* this.#losses(0, this.journal, plain, most);
    this.#told = { plain: count, epoch };
    if (this.#epoch === null) return;
    const { covers, journal } = this.#epoch;
    yield* this.#losses(covers, journal, epoch < 0 ? epoch : epoch - covers, most);
    this.#told = { plain: count, epoch: count };
  }

  *#losses(
    durable: number,
    journal: ModelJournal,
    told: number,
    most: number,
  ): Generator<Survivors, void, undefined> {
    const open = this.#pending.slice(durable);
    if (told >= open.length) return;
    const start = this.#durable.copy();
    for (const write of this.#pending.slice(0, durable)) start.apply(write);
    for (const kept of subsets(open.length, told, most)) {
      const disks = start.copy();
      const isKept = (index: number): boolean => Math.floor(kept / 2 ** index) % 2 === 1;
      for (const [index, write] of open.entries()) if (isKept(index)) disks.apply(write);
      reclaimed(disks, journal);
      const lost = open.filter((_, index) => !isKept(index));
      const plain = lost.length <= 1 || open.length - lost.length <= 1;
      yield { disks, journal, lost, pending: open.length, plain };
    }
  }
}

/** Equal for states from which a job goes on in the same way. */
export function stateKey(disks: Disks, journal: ModelJournal): string {
  return `${disks.key()}${journalKey(journal)}`;
}

/** What no durable cursor knows of is given back by whoever resumes. */
function reclaimed(disks: Disks, { stagings }: ModelJournal): Disks {
  for (let image = 0; image < disks.count; image++)
    if (disks.hasStaging(image) && !stagings.includes(image)) disks.dropStaging(image);
  return disks;
}

/**
 * Sets of `count` things, as binary numbers, that hold one of those from `told` on (told < 0: all sets). More than `most` things: only
 * none, all, each alone and all but each.
 */
function* subsets(count: number, told: number, most: number): Generator<number, void, undefined> {
  if (count <= most) {
    for (let set = told < 0 ? 0 : 2 ** told; set < 2 ** count; set++) yield set;
    return;
  }
  const all = 2 ** count - 1;
  if (told < 0) yield 0;
  yield all;
  for (let one = 0; one < count; one++) {
    if (one >= told) yield 2 ** one;
    yield all - 2 ** one;
  }
}
