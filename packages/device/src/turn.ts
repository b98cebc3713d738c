/** Something that may have to wait until it begins. No promise is made when it has not. */
export class Turn {
  #begun = false;
  #waiting: PromiseWithResolvers<void> | null = null;

  get begun(): boolean {
    return this.#begun;
  }

  /** Resolves when it begins. */
  wait(): Promise<void> {
    if (this.#begun) return Promise.resolve();
    this.#waiting ??= Promise.withResolvers();
    return this.#waiting.promise;
  }

  begin(): void {
    this.#begun = true;
    this.#waiting?.resolve();
  }
}

/** What a request does to its range: reads run beside each other, a change runs alone; `none`: it has no range. */
export type Use = 'none' | 'read' | 'change';

/** A request on its way: bytes `[start, end)`. */
export class Ticket extends Turn {
  readonly use: Use;
  readonly start: number;
  readonly end: number;
  /** Requests that must be over before this one begins, as far as they are known by name. */
  waitsFor = 0;
  /** Requests that wait for this one, in the order they came. */
  readonly behind: Ticket[] = [];
  /** The last search that met it; see `RangeOrder`. */
  met = 0;

  constructor(use: Use, start: number, end: number) {
    super();
    this.use = use;
    this.start = start;
    this.end = end;
  }
}
