import type { Image } from '@downfold/image';

/** Joins flushes of one image: who asks while one runs shares the one that follows it, which covers all that was written by then. */
class ImageFlusher {
  readonly #image: Image;
  #running: Promise<void> | null = null;
  #next: Promise<void> | null = null;

  constructor(image: Image) {
    this.#image = image;
  }

  flush(): Promise<void> {
    if (this.#running === null) return this.#start();
    const start = (): Promise<void> => this.#start();
    this.#next ??= this.#running.then(start, start);
    return this.#next;
  }

  #start(): Promise<void> {
    this.#next = null;
    const running = this.#image.flush();
    this.#running = running;
    const over = (): void => {
      this.#running = null;
    };
    running.then(over, over);
    return running;
  }
}

/** Flushes images, with as few flushes as the callers allow. */
export class Flushers {
  readonly #flushers: WeakMap<Image, ImageFlusher> = new WeakMap();

  /** Everything written to the image before the call is durable when it resolves. */
  flush(image: Image): Promise<void> {
    let flusher = this.#flushers.get(image);
    if (flusher === undefined) {
      flusher = new ImageFlusher(image);
      this.#flushers.set(image, flusher);
    }
    return flusher.flush();
  }
}
