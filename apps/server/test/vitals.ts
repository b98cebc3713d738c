import { readdirSync, readFileSync } from 'node:fs';
import { expect } from 'vitest';
import { get } from './http.ts';
import type { Bench } from './support.ts';

/** What a server has taken. */
export interface Vitals {
  /** Since the first look. */
  readonly seconds: number;
  /** Open descriptors, as the kernel counts them. */
  readonly files: number;
  /** Bytes that are resident, as the kernel counts them. */
  readonly resident: number;
  /** Bytes of its heap, garbage included, as it says itself. */
  readonly heap: number;
}

/** Looks at a server from time to time, which needs `METRICS`. */
export class Doctor {
  readonly looks: Vitals[] = [];
  readonly #bench: Bench;
  readonly #pid: number;
  readonly #begun: number = performance.now();

  constructor(bench: Bench, pid: number) {
    this.#bench = bench;
    this.#pid = pid;
  }

  async look(): Promise<Vitals> {
    const { text } = await get(this.#bench, '/metrics');
    const [, kibibytes = ''] =
      /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${this.#pid}/status`, 'utf8')) ?? [];
    const [, heap = ''] = /^nodejs_heap_size_used_bytes (\d+)$/m.exec(text) ?? [];
    const vitals = {
      seconds: (performance.now() - this.#begun) / 1000,
      files: readdirSync(`/proc/${this.#pid}/fd`).length,
      resident: Number(kibibytes) * 1024,
      heap: Number(heap),
    };
    this.looks.push(vitals);
    return vitals;
  }

  /**
   * Neither the heap nor what is resident has grown, once warmed up: what the second fifth of all looks needed at least is compared with what the last
   * fifth did. At least, since garbage comes and goes.
   * @param growth bytes that each may: what is resident more, since freed pages come back late, and in pieces
   */
  expectFlat(growth: { readonly heap: number; readonly resident: number }): void {
    const fifth = Math.floor(this.looks.length / 5);
    expect(fifth, 'too few looks').toBeGreaterThan(2);
    const early = this.looks.slice(fifth, 2 * fifth);
    const late = this.looks.slice(-fifth);
    for (const of of ['heap', 'resident'] as const) {
      const least = (looks: readonly Vitals[]): number => Math.min(...looks.map((one) => one[of]));
      const grown = least(late) - least(early);
      expect(grown, `bytes that ${of} has grown by: ${this.curve}`).toBeLessThan(growth[of]);
    }
  }

  /** The looks, for people: seconds, MiB resident, MiB of heap, descriptors. */
  get curve(): string {
    const step = Math.max(1, Math.floor(this.looks.length / 40));
    const mebibytes = (bytes: number): string => (bytes / 2 ** 20).toFixed(1);
    return this.looks
      .filter((_, index) => index % step === 0)
      .map(
        ({ seconds, resident, heap, files }) =>
          `${seconds.toFixed(0)} s ${mebibytes(resident)} ${mebibytes(heap)} ${files}`,
      )
      .join('; ');
  }
}
