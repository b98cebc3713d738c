import type { CommitPlan } from '../plan.ts';
import type { Disks } from './disks.ts';
import { type ModelJournal, needsSources } from './model-journal.ts';
import type { Pool } from './pool.ts';
import type { RuleId } from './rules.ts';

/** A rule that a state breaks, and how. */
export type Broken = readonly [rule: RuleId, message: string];

/** Judges what a crash leaves, and what memory shows between two steps. */
export class StateCheck {
  readonly #pool: Pool;
  readonly #plan: CommitPlan;
  /** What base shows when all is done; empty: not a commit. */
  readonly #finalBase: readonly number[];
  readonly #ruleOf: readonly RuleId[];

  constructor(pool: Pool, plan: CommitPlan) {
    this.#pool = pool;
    this.#plan = plan;
    this.#finalBase = pool.setting.operation === 'commit' ? finalBase(pool) : [];
    this.#ruleOf = pool.facts.map(({ node }) => {
      if (plan.invalidates.some((one) => one.node === node))
        return 'crash/images-read-as-before-until-invalidated';
      return plan.preserves.includes(node)
        ? 'crash/preserved-images-read-as-before'
        : 'crash/nobody-else-changes';
    });
  }

  /** What base must show at the end of a commit, by sector: what top showed, and past top what it showed itself. */
  get finalBase(): readonly number[] {
    return this.#finalBase;
  }

  *broken(disks: Disks, journal: ModelJournal): Generator<Broken, void, undefined> {
    for (const image of this.#pool.facts.keys()) {
      if (image === this.#pool.base && this.#finalBase.length > 0)
        yield* this.#base(disks, journal);
      else if (!this.#isLost(image, journal)) yield* this.#other(disks, image, journal);
    }
    if (needsSources(journal)) yield* this.#sources(disks);
    if (journal.pivoted) yield* this.#disk(disks, journal);
  }

  /** After a pivot base shows all that the disk did, and that its client was told is written. */
  *#disk(disks: Disks, journal: ModelJournal): Generator<Broken, void, undefined> {
    const wanted = this.#pool.disk(journal);
    const found = wanted.map((_, sector) => disks.shows(this.#pool.base, sector));
    if (!same(found, wanted))
      yield [
        'crash/the-disk-shows-what-was-written',
        `the disk is base, which shows ${found}, and must show ${wanted}`,
      ];
  }

  #isLost(image: number, journal: ModelJournal): boolean {
    const { setting, top } = this.#pool;
    // the user vouches for what top shows over its new backing file
    if (setting.unsafe && this.#pool.readsThrough(image, top)) return true;
    if (image === top && journal.pivoted) return true;
    const { node } = this.#pool.facts[image] as { node: string };
    return (
      journal.invalidated.includes(image) && this.#plan.invalidates.some((one) => one.node === node)
    );
  }

  *#base(disks: Disks, journal: ModelJournal): Generator<Broken, void, undefined> {
    const { base, shown } = this.#pool;
    if (journal.invalidated.includes(base)) return;
    const found = disks.shown(base);
    if (disks.isPublished(base) && same(found, this.#finalBase)) return;
    const before = shown[base] as readonly number[];
    const grown = found.map((_, sector) => before[sector] ?? 0);
    if (!same(found, grown) || found.length < before.length)
      yield [
        'crash/base-reads-as-before-until-invalidated',
        `base shows ${found}, and showed ${before}`,
      ];
  }

  *#other(disks: Disks, image: number, journal: ModelJournal): Generator<Broken, void, undefined> {
    const node = this.#pool.nodeOf(image);
    const found = disks.shown(image);
    const before =
      image === this.#pool.top
        ? this.#pool.disk(journal)
        : (this.#pool.shown[image] as readonly number[]);
    if (!same(found, before))
      yield [this.#ruleOf[image] as RuleId, `${node} shows ${found}, and showed ${before}`];
    for (let at = disks.link(image); at >= 0; at = disks.link(at))
      if (disks.isMarked(at))
        yield [
          'crash/nobody-reads-through-the-retired',
          `${node} reads through ${this.#pool.nodeOf(at)}, which is retired`,
        ];
  }

  *#sources(disks: Disks): Generator<Broken, void, undefined> {
    const { initial } = this.#pool;
    for (const node of this.#plan.reads) {
      const image = this.#pool.indexOf(node);
      if (!disks.isSame(image, initial))
        yield ['plan/reads-stay-while-needed', `${node} is in plan.reads, and was changed`];
    }
  }
}

function finalBase(pool: Pool): readonly number[] {
  const [base, top] = [pool.shown[pool.base] ?? [], pool.shown[pool.top] ?? []];
  const overlays = pool.overlaysOf(pool.top).map((image) => pool.shown[image]?.length ?? 0);
  const zeroedTo = Math.max(top.length, ...overlays);
  const length = Math.max(base.length, top.length);
  return Array.from({ length }, (_, sector) =>
    sector < top.length
      ? (top[sector] as number)
      : sector < zeroedTo
        ? 0
        : (base[sector] as number),
  );
}

function same(a: ArrayLike<number>, b: ArrayLike<number>): boolean {
  if (a.length !== b.length) return false;
  for (let at = 0; at < a.length; at++) if (a[at] !== b[at]) return false;
  return true;
}
