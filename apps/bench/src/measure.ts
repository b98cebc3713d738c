import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type BenchChain, makeChain, putBack, type Shape } from './chain.ts';
import type { BenchOptions } from './options.ts';
import { must, type Timing, timed } from './process.ts';

/** Figures of one scenario. */
export interface Scenario {
  readonly shape: Shape;
  readonly mebibytes: number;
  readonly downfold: readonly Timing[];
  readonly qemu: readonly Timing[];
  /** Median of the ratios of each pair, wall clock, Downfold to QEMU: below one, Downfold is faster. */
  readonly ratio: number;
}

/** The middle value; of the lower half's largest and the upper half's smallest, the mean. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const upper = sorted[Math.floor(sorted.length / 2)] ?? Number.NaN;
  const lower = sorted[Math.ceil(sorted.length / 2) - 1] ?? Number.NaN;
  return (lower + upper) / 2;
}

const CLI = fileURLToPath(new URL('../../cli/bin/downfold.js', import.meta.url));

/** A machine that is never quiet ends the wait for quiet pairs after this many times the pairs asked for. */
const MOST_TRIES = 40;

/** Runs Downfold and QEMU in turn, `pairs` times, after one pair that is checked and not timed. */
export function measure(directory: string, shape: Shape, options: BenchOptions): Scenario {
  const chain = makeChain(join(directory, shape), shape, options.mebibytes);
  for (const commit of [commitByQemu, commitByDownfold]) {
    prepare(chain, options);
    commit(chain);
    assertCommitted(chain);
  }
  const pairs: { downfold: Timing; qemu: Timing }[] = [];
  for (let tries = 0; pairs.length < options.pairs; tries += 1) {
    if (tries === options.pairs * MOST_TRIES)
      throw new Error(`only ${pairs.length} of ${tries} pairs were quiet: others use this machine`);
    const pair = onePair(chain, options);
    if (Math.max(pair.downfold.noise, pair.qemu.noise) <= options.noise) pairs.push(pair);
  }
  return {
    shape,
    mebibytes: options.mebibytes,
    downfold: pairs.map(({ downfold }) => downfold),
    qemu: pairs.map(({ qemu }) => qemu),
    ratio: median(pairs.map(({ downfold, qemu }) => downfold.milliseconds / qemu.milliseconds)),
  };
}

function onePair(chain: BenchChain, options: BenchOptions): { downfold: Timing; qemu: Timing } {
  prepare(chain, options);
  const downfold = commitByDownfold(chain);
  prepare(chain, options);
  return { downfold, qemu: commitByQemu(chain) };
}

function commitByQemu(chain: BenchChain): Timing {
  return timed('qemu-img', ['commit', '-q', '-d', '-f', 'qcow2', '-b', chain.base, chain.top]);
}

function commitByDownfold(chain: BenchChain): Timing {
  const args = ['commit', '-q', '-d', '-f', 'qcow2', '-b', chain.base, chain.top];
  return timed(process.execPath, [CLI, ...args]);
}

/**
 * Puts the chain back, and touches memory that was free: in a virtual machine that gives free memory back to its host, the
 * first touch costs ten times a normal page fault, and the run would measure the host.
 */
function prepare(chain: BenchChain, options: BenchOptions): void {
  putBack(chain);
  if (options.smoke) return;
  const touch = 'dd if=/dev/zero of=/dev/null bs=1300M count=1 status=none';
  must('sh', ['-c', `${touch} & ${touch} & wait`]);
}

function assertCommitted(chain: BenchChain): void {
  must('qemu-img', ['compare', '-q', '-f', 'qcow2', '-F', 'raw', chain.base, chain.topView]);
  must('qemu-img', ['check', '-q', '-f', 'qcow2', chain.base]);
}
