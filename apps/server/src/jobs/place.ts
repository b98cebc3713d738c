import type { Claim } from '@downfold/commit';
import type { JobType } from '@downfold/job';
import { type Disk, type DiskUser, type JobUse, worksWith } from '../graph/disk.ts';

/** A job's place beneath a disk, from before its plan is made. It is let go at the end of the block, unless a job has begun. */
export class Place implements DiskUser, Disposable {
  readonly disk: Disk;
  readonly job: JobUse;
  #isKept = false;

  constructor(disk: Disk, job: JobUse) {
    this.disk = disk;
    this.job = job;
  }

  get label(): string {
    return `job '${this.job.id}'`;
  }

  /** Whether the job works with the active layer. */
  get isOnTop(): boolean {
    return worksWith(this, this.disk.active);
  }

  /** Until `release`. */
  keep(): void {
    this.#isKept = true;
  }

  release(): void {
    this.disk.release(this);
  }

  /** At the end of a job that has begun. */
  async leave(): Promise<void> {
    await this.disk.leave(this);
  }

  [Symbol.dispose](): void {
    if (!this.#isKept) this.release();
  }
}

/** Indexes of layers, bottom first; a base of -1: none. */
export interface Ends {
  readonly base: number;
  readonly top: number;
}

/**
 * What a job claims before it has a plan. Layers longer than the disk are all claimed at once: requests, whose order keeps jobs apart, do not reach
 * their ends. @param whole the strategy reads all below base too
 */
export function claimFor(disk: Disk, type: JobType, { base, top }: Ends, whole: boolean): Claim {
  const { layers, active } = disk;
  const size = active.image.geometry.virtualSize;
  const isLonger = layers.some(({ image }) => image.geometry.virtualSize > size);
  const paths = layers.map(({ facts }) => facts.path);
  const isCommit = type === 'commit';
  const from = whole || isLonger ? 0 : isCommit ? base : base + 1;
  return {
    consumes: paths.slice(from, isLonger ? paths.length : top + 1),
    relinks: isCommit && !isLonger ? paths.slice(top + 1, top + 2) : [],
    stands: isCommit || from === 0 ? [] : paths.slice(base, from),
  };
}
