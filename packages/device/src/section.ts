import type { ChainLayer } from '@downfold/chain';
import type { ReplaceOptions } from './options.ts';

/** What may be done to a disk while no request runs. */
export interface DrainedSection {
  /** The layers now, bottom first. */
  readonly layers: readonly ChainLayer[];
  /**
   * Puts other layers under the disk: without a subchain, with a new overlay on top, or those of a pivot. Requests that are held see the
   * new ones. What was written to images that leave is flushed first; they are the caller's again. The disk grows with its active layer.
   * @throws DeviceError `DEVICE_BAD_CHAIN` when the disk would shrink or could not be written to any more; nothing changed
   */
  replace(layers: readonly ChainLayer[], options?: ReplaceOptions): Promise<void>;
  /** As `Device.flush`, which would wait for the section. */
  flush(): Promise<void>;
  /** The disk takes no more changes, as after a failed flush: what it was to be changed for is not known to be safe. Reads go on. */
  fail(cause: unknown): void;
}

/** What a section needs of its disk. */
export interface SectionHost extends DrainedSection {
  /** @throws DeviceError `DEVICE_DRAINED` */
  over(): never;
}

/** A section that knows when it is over. */
export class LiveSection implements DrainedSection {
  readonly #host: SectionHost;
  #isOver = false;

  constructor(host: SectionHost) {
    this.#host = host;
  }

  get isOver(): boolean {
    return this.#isOver;
  }

  get layers(): readonly ChainLayer[] {
    return this.#live().layers;
  }

  async replace(layers: readonly ChainLayer[], options?: ReplaceOptions): Promise<void> {
    await this.#live().replace(layers, options);
  }

  async flush(): Promise<void> {
    await this.#live().flush();
  }

  fail(cause: unknown): void {
    this.#live().fail(cause);
  }

  end(): void {
    this.#isOver = true;
  }

  #live(): SectionHost {
    if (this.#isOver) this.#host.over();
    return this.#host;
  }
}
