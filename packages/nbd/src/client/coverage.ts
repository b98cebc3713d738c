/** Which bytes of a read have come: each must come once. */
export class Coverage {
  readonly #start: number;
  readonly #end: number;
  /** What has come, apart and in order, as start and end in turn. */
  #runs: number[] = [];

  constructor(offset: number, length: number) {
    this.#start = offset;
    this.#end = offset + length;
  }

  /** Whether all bytes have come. */
  get complete(): boolean {
    if (this.#start === this.#end) return true;
    return this.#runs.length === 2 && this.#runs[0] === this.#start && this.#runs[1] === this.#end;
  }

  /** Notes a piece; `false` when it is empty, lies outside, or covers what has come before. */
  add(offset: number, length: number): boolean {
    const end = offset + length;
    if (!(length > 0 && offset >= this.#start && end <= this.#end)) return false;
    const runs = this.#runs;
    const at = this.#firstFrom(offset);
    const before = runs[at - 1];
    const after = runs[at];
    if ((before !== undefined && before > offset) || (after !== undefined && after < end))
      return false;
    const joinsBefore = before === offset;
    const joinsAfter = after === end;
    if (joinsBefore && joinsAfter) runs.splice(at - 1, 2);
    else if (joinsBefore) runs[at - 1] = end;
    else if (joinsAfter) runs[at] = offset;
    else runs.splice(at, 0, offset, end);
    return true;
  }

  /** Index of the first run that starts at `offset` or later. */
  #firstFrom(offset: number): number {
    const runs = this.#runs;
    let low = 0;
    let high = runs.length / 2;
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((runs[2 * middle] ?? Number.POSITIVE_INFINITY) < offset) low = middle + 1;
      else high = middle;
    }
    return 2 * low;
  }
}
