import type { Image, ImageSnapshot } from '@downfold/image';
import { assertOpen, changeImage } from './change.ts';
import { applySnapshot } from './snapshot-apply.ts';
import { createSnapshot } from './snapshot-create.ts';
import { deleteSnapshot } from './snapshot-delete.ts';
import {
  readSnapshotL1,
  readSnapshots,
  snapshotFacts,
  snapshotNamed,
  snapshotState,
} from './snapshots.ts';
import type { Qcow2State } from './state.ts';

/** What is done with the internal snapshots of one image. Snapshots are named by their id, which is unique; names need not be. */
export interface Snapshots {
  /** In the order of the snapshot table. */
  list(): Promise<readonly ImageSnapshot[]>;
  /**
   * Keeps what the disk shows as a snapshot, durably: after a crash it is there whole, or not. `date`: ISO 8601. As `Staging.publish`
   * it moves the image to a mapping of its own.
   * @throws ImageError `IMAGE_UNSUPPORTED`, `IMAGE_LIMIT` or `IMAGE_NO_SPACE` when the image cannot have it; it is unchanged then
   */
  create(about: { readonly name: string; readonly date: string }): Promise<ImageSnapshot>;
  /**
   * Makes the disk show what a snapshot shows, its size included; durable, and atomic. Reads of the image under way must be drained
   * first. Refused when the image has persistent bitmaps, as QEMU refuses it.
   */
  apply(id: string): Promise<void>;
  /** Deletes a snapshot, and gives back what it alone held; durable, and atomic. */
  delete(id: string): Promise<void>;
  /** What a snapshot shows, for reading: good until it is deleted or the image is closed. Its backing file is the image's. */
  open(id: string): Promise<Image>;
}

export class Qcow2Snapshots implements Snapshots {
  readonly #state: Qcow2State;
  readonly #imageOver: (state: Qcow2State) => Image;

  /** `imageOver` makes an image for a mapping. */
  constructor(state: Qcow2State, imageOver: (state: Qcow2State) => Image) {
    this.#state = state;
    this.#imageOver = imageOver;
  }

  async list(): Promise<readonly ImageSnapshot[]> {
    assertOpen(this.#state);
    return (await readSnapshots(this.#state)).map(snapshotFacts);
  }

  create(about: { readonly name: string; readonly date: string }): Promise<ImageSnapshot> {
    return changeImage(this.#state, 'header', undefined, () => createSnapshot(this.#state, about));
  }

  async apply(id: string): Promise<void> {
    await changeImage(this.#state, 'header', undefined, () => applySnapshot(this.#state, id));
  }

  async delete(id: string): Promise<void> {
    await changeImage(this.#state, 'header', undefined, () => deleteSnapshot(this.#state, id));
  }

  async open(id: string): Promise<Image> {
    assertOpen(this.#state);
    const state = this.#state;
    const snapshot = snapshotNamed(state, await readSnapshots(state), id);
    return this.#imageOver(snapshotState(state, snapshot, await readSnapshotL1(state, snapshot)));
  }
}
