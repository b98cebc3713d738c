/** Bytes after which the pace is judged anew. */
const SAMPLE_BYTES = 1 << 20;
/** What is in memory is read in a fifth of this time, what comes from a disk seldom in less. */
const SLOW_MS_PER_MIB = 1;
/** As well, for each read: the call itself takes a tenth of this, the fastest disk twice as long. */
const SLOW_MS_PER_READ = 0.05;

/** Bytes that come from memory before a file that was slow counts as fast: what was announced comes from memory, because it was announced. */
const FORGOTTEN_AFTER = 128 << 20;

/** Whether bytes of a file come from memory or from a disk, told by how long reads take. */
export class Pace {
  /** Bytes to come for which it still counts as slow. */
  #slowFor = 0;
  #reads = 0;
  #bytes = 0;
  #milliseconds = 0;

  get isSlow(): boolean {
    return this.#slowFor > 0;
  }

  note(bytes: number, milliseconds: number): void {
    this.#reads += 1;
    this.#bytes += bytes;
    this.#milliseconds += milliseconds;
    if (this.#bytes < SAMPLE_BYTES) return;
    const most = (this.#bytes / 2 ** 20) * SLOW_MS_PER_MIB + this.#reads * SLOW_MS_PER_READ;
    this.#slowFor = this.#milliseconds > most ? FORGOTTEN_AFTER : this.#slowFor - this.#bytes;
    this.#reads = 0;
    this.#bytes = 0;
    this.#milliseconds = 0;
  }
}
