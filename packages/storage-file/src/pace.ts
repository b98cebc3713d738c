/** Bytes after which the pace is judged anew. */
const SAMPLE_BYTES = 1 << 20;
/** What is in memory is read in a fifth of this time, what comes from a disk seldom in less. */
const SLOW_MS_PER_MIB = 1;

/** Whether bytes of a file come from memory or from a disk, told by how long reads take. */
export class Pace {
  isSlow = false;
  #bytes = 0;
  #milliseconds = 0;

  note(bytes: number, milliseconds: number): void {
    this.#bytes += bytes;
    this.#milliseconds += milliseconds;
    if (this.#bytes < SAMPLE_BYTES) return;
    this.isSlow = this.#milliseconds / (this.#bytes / 2 ** 20) > SLOW_MS_PER_MIB;
    [this.#bytes, this.#milliseconds] = [0, 0];
  }
}
