import type { Image, PublishOptions, Staging, StagingToken } from '@downfold/image';
import { reclaimLeaks } from './reclaim.ts';
import { noStaging } from './stage-place.ts';
import { discardStaged, publishStaged } from './stage-publish.ts';
import type { Qcow2State } from './state.ts';
import { mutate } from './writer.ts';

/** The `Staging` contract over a mapping of its own. What changes and reads that mapping are the members of an image over it. */
export class Qcow2Staging implements Staging {
  readonly token: StagingToken;
  readonly published = false;
  readonly read: Staging['read'];
  readonly write: Staging['write'];
  readonly copyFrom: Staging['copyFrom'];
  readonly writeZeroes: Staging['writeZeroes'];
  readonly flush: Staging['flush'];
  readonly #staged: Qcow2State;

  /** `members`: an image over `staged`. */
  constructor(staged: Qcow2State, members: Image) {
    const { l1TableOffset: l1Offset, l1Size, size: virtualSize } = staged.header;
    this.token = { l1Offset, l1Size, virtualSize };
    this.#staged = staged;
    this.read = members.read.bind(members);
    this.write = members.write.bind(members);
    this.copyFrom = members.copyFrom.bind(members);
    this.writeZeroes = members.writeZeroes.bind(members);
    this.flush = members.flush.bind(members);
  }

  publish(options: PublishOptions): Promise<void> {
    return mutate(this.#staged, () => publishStaged(this.#staged, options));
  }

  discard(): Promise<void> {
    return mutate(this.#staged, () => discardStaged(this.#staged));
  }
}

/** What a token stands for when an earlier process had published the staging, or had begun to discard it: only that can be ended. */
export class EndedStaging implements Staging {
  readonly token: StagingToken;
  readonly published: boolean;
  readonly #image: Qcow2State;
  readonly #members: Image | null;

  /** `members`: the image, when the staging was published; null: it was discarded. */
  constructor(image: Qcow2State, token: StagingToken, members: Image | null) {
    this.token = token;
    this.published = members !== null;
    this.#image = image;
    this.#members = members;
  }
