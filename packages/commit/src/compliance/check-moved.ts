import { alignDown, rangeEnd } from '@downfold/units';
import type { CommitPlan } from '../plan.ts';
import { writeCost } from '../plan-facts.ts';
import type { Step } from '../step.ts';
import type { Broken } from './check-state.ts';
import type { Model } from './model.ts';
import type { Pool } from './pool.ts';
import type { Run, Start } from './run.ts';
import { SECTOR_BYTES } from './setting.ts';

/** Judges how much was copied, zeroed, written and freed. */
export class MovedCheck {
  readonly #pool: Pool;
  readonly #plan: CommitPlan;
  #slack: number;
  /** Images that the first run copied into. */
  #targets = 0;

  constructor(pool: Pool, plan: CommitPlan) {
    this.#pool = pool;
    this.#plan = plan;
    // what the client of the disk writes is data of top from then on
    const { client } = pool.setting;
    const { unit } = pool.image(pool.top);
    this.#slack = slackOf(plan) + (client == null ? 0 : unit * SECTOR_BYTES);
  }

  /** A run that was not interrupted moves what the plan says. */
  *broken(model: Model, { steps }: Run): Generator<Broken, void, undefined> {
    const { bytesToCopy, bytesToZero, request } = this.#plan;
    this.#targets = new Set(steps.flatMap((step) => (step.do === 'copy' ? [step.to] : []))).size;
    this.#slack += completedBy(steps, this.#plan);
    const [copies, zeros] = [model.copied - bytesToCopy, model.zeroed - bytesToZero];
    // what a rebase compares and finds equal is not copied
    const least = request.operation === 'rebase' ? Number.NEGATIVE_INFINITY : -this.#slack;
    if (copies > this.#slack || copies < least || Math.abs(zeros) > this.#slack)
      yield [
        'plan/counts-what-is-moved',
        `planned ${bytesToCopy} bytes to copy, ${bytesToZero} to zero; copied ${model.copied}, zeroed ${model.zeroed}`,
      ];
    yield* this.#costs(model);
  }

  /** A resumed run copies what no durable cursor covers, and a crash costs no more than a checkpoint. */
  *brokenAgain(
    model: Model,
    { journal, crashes, spent }: Start,
  ): Generator<Broken, void, undefined> {
    const { bytesToCopy, request } = this.#plan;
    // what a disk in use changed was known in memory only: such a job begins again
    if (this.#pool.setting.client !== undefined) return;
    if (journal.copied + model.copied > bytesToCopy + this.#slack)
      yield [
        'resume/copies-only-what-is-left',
        `${model.copied} bytes copied, and ${journal.copied} were done of ${bytesToCopy}`,
      ];
    // but not less than a unit of each image that is copied into, and one more: one epoch is copied while the last becomes durable
    const unit = Math.max(...this.#pool.setting.images.map((image) => image.unit)) * SECTOR_BYTES;
    const loss = Math.max(request.checkpointBytes, unit * (this.#targets + 1));
    if (spent + model.copied > bytesToCopy + this.#slack + crashes * loss)
      yield [
        'resume/loses-no-more-than-a-checkpoint',
        `${spent} bytes copied before crash ${crashes} and ${model.copied} after it, of ${bytesToCopy}; ${loss} may be lost each time`,
      ];
  }

  *#costs({ images }: Model): Generator<Broken, void, undefined> {
    for (const [image, written] of images.written.entries()) {
      const node = this.#pool.nodeOf(image);
      const cost = this.#plan.costs.find((one) => one.node === node);
      const freed = images.freed[image] as number;
      const most = (cost?.written ?? 0) + (image === this.#pool.base ? this.#changed() : 0);
      if (written > most || freed > (cost?.freed ?? 0))
        yield [
          'plan/costs-are-upper-bounds',
          `${node}: ${written} bytes written, ${freed} freed; planned ${JSON.stringify(cost)}`,
        ];
    }
  }

  /** What base is written at most for what the client of the disk wrote meanwhile, which no plan knows. */
  #changed(): number {
    const { client } = this.#pool.setting;
    const base = this.#plan.images.find(({ node }) => node === this.#plan.request.base);
    if (client == null || base === undefined) return 0;
    const bytes = this.#pool.image(this.#pool.top).unit * SECTOR_BYTES;
    return writeCost(base, { bytes, zeros: 0, runs: 1 });
  }
}

/**
 * Bytes of units of layers above base that steps cover in part, as what is lifted past the end of a top that ends within a unit: such a unit
 * is completed, and goes to base with its layer.
 */
function completedBy(steps: readonly Step[], { images, chainLength, request }: CommitPlan): number {
  const layers = images.slice(0, chainLength).filter(({ node }) => node !== request.base);
  let bytes = 0;
  for (const step of steps) {
    if (step.do !== 'copy' && step.do !== 'zero') continue;
    const to = step.do === 'copy' ? step.to : step.node;
    const layer = layers.find(({ node }) => node === to);
    if (layer === undefined) continue;
    const { allocationGranularity: unit, virtualSize } = layer.geometry;
    const end: number = rangeEnd(step.range);
    if (step.range.offset % unit !== 0) bytes += unit;
    if (end % unit !== 0 && end !== virtualSize) bytes += unit;
  }
  return bytes;
}

/**
 * By how many bytes counts may be off: a write completes units of its image, which are seen as allocated by what comes after it; and
 * the area that a base without units, or with a cut one, gets when it grows is data.
 */
function slackOf({ growBaseTo, request, images }: CommitPlan): number {
  const units = images.map(({ geometry }) => geometry.allocationGranularity);
  const base = images.find(({ node }) => node === request.base)?.geometry;
  const mixed = new Set(units).size > 1 ? Math.max(...units) : 0;
  if (growBaseTo === null || base === undefined) return mixed * images.length;
  const start = alignDown(base.virtualSize, base.allocationGranularity);
  const isData = base.clusterSize === 1 || start < base.virtualSize;
  return (mixed + (isData ? growBaseTo - start : 0)) * images.length;
}
