import type { CowSource, Image, PublishOptions, Staging, StagingToken } from '@downfold/image';
import type { GuestOffset } from '@downfold/units';
import { reclaimLeaks } from './reclaim.ts';
import { noStaging, placeIn } from './stage-place.ts';
import { discardStaged, publishStaged } from './stage-publish.ts';
import { assertNotStaged } from './stage-state.ts';
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
    this.token = { ...placeIn(staged.header) };
    this.#staged = staged;
    this.read = members.read.bind(members);
    this.write = members.write.bind(members);
    this.copyFrom = members.copyFrom.bind(members);
    this.writeZeroes = members.writeZeroes.bind(members);
    this.flush = members.flush.bind(members);
  }

  publish(options: PublishOptions): Promise<void> {
    return mutate(this.#staged, () => publishStaged(this.#staged, options.keepUndo));
  }

  discard(): Promise<void> {
    return mutate(this.#staged, () => discardStaged(this.#staged));
  }
}

/**
 * What a token stands for when an earlier process published the staging, or began to discard it: all that is left to do is to give
 * back what the process that ended did not come to.
 */
export class EndedStaging implements Staging {
  readonly token: StagingToken;
  readonly published: boolean;
  readonly #image: Qcow2State;
  readonly #members: Image | null;

  /** `members`: those of the image, which shows what was staged; null when the staging was discarded. */
  constructor(image: Qcow2State, token: StagingToken, members: Image | null) {
    this.token = token;
    this.published = members !== null;
    this.#image = image;
    this.#members = members;
  }

  async read(offset: GuestOffset, target: Uint8Array, below: CowSource | null): Promise<void> {
    if (this.#members === null) throw this.#over();
    await this.#members.read(offset, target, below);
  }
  async write(): Promise<void> {
    throw this.#over();
  }
  async copyFrom(): Promise<void> {
    throw this.#over();
  }
  async writeZeroes(): Promise<void> {
    throw this.#over();
  }
  async flush(): Promise<void> {
    if (this.#members === null) throw this.#over();
    await this.#members.flush();
  }
  async publish(): Promise<void> {
    if (!this.published) throw this.#over();
    await this.#giveBack();
  }
  async discard(): Promise<void> {
    if (this.published) throw this.#over();
    await this.#giveBack();
  }

  async #giveBack(): Promise<void> {
    await mutate(this.#image, () => {
      assertNotStaged(this.#image);
      return reclaimLeaks(this.#image);
    });
  }

  #over(): Error {
    const how = this.published ? 'published' : 'discarded';
    return noStaging(this.#image, `the staging was ${how} by an earlier process`);
  }
}
