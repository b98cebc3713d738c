import { type GivenSecret, secretFor } from '@downfold/host';
import type { ImageSecret } from '@downfold/image';
import type { Objects } from '../options/objects.ts';

/** The secrets of encrypted images, by path: those of nodes, which name an object, and those that the command line gave to images. */
export class ImageSecrets {
  readonly #objects: Objects;
  readonly #given: readonly GivenSecret[];
  readonly #ofNodes: Map<string, ImageSecret> = new Map();

  constructor(objects: Objects, given: readonly GivenSecret[] = []) {
    this.#objects = objects;
    this.#given = given;
  }

  /** @param path links resolved */
  of(path: string): ImageSecret | null {
    return this.#ofNodes.get(path) ?? secretFor(path, this.#given);
  }

  /** What a new node of the image has: the object's secret, or without one what is known. @throws ServerError `SERVER_OBJECT` */
  named(path: string, id: string | null): ImageSecret | null {
    return id === null ? this.of(path) : this.#objects.secret(id);
  }

  /** A node is the image: its secret stays, also when the object is gone, and when a job has let the node go, which may not be done with the image. */
  keep(path: string, secret: ImageSecret | null): void {
    if (secret !== null) this.#ofNodes.set(path, secret);
  }

  /** No node is the image any more. */
  forget(path: string): void {
    this.#ofNodes.delete(path);
  }
}
