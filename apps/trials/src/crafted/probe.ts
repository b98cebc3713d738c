// A process of its own, started by run.ts: opens crafted images one after the other and reports each on a line of JSON.
// usage: node --expose-gc probe.ts CORPUS NAME...
import { readFileSync, writeFileSync } from 'node:fs';
import type { ChainPolicy } from '@downfold/chain';
import { imageSecret } from '@downfold/image';
import { DownfoldError } from '@downfold/units';
import { type OpenForReading, openForReading } from '../downfold.ts';
import type { CraftedCase, Region, Step, Verdict } from './case.ts';
import { corpus, imagePath } from './corpus.ts';
import type { Outcome } from './outcome.ts';

/** What is read of a large disk: its start and its end. */
const SAMPLE = 8 << 20;
const PIECE = 1 << 20;
/** Extents that are looked at; a consumer that has seen enough may stop. */
const MOST_EXTENTS = 50_000;

const [directory = '', ...names] = process.argv.slice(2);
// the first images of a process pay for compiling the code: not what is measured
for (const name of ['compressed_valid', 'leaked_cluster', 'backing_missing']) await probe(name);
for (const name of names) {
  process.stdout.write(`${JSON.stringify({ begin: name })}\n`);
  process.stdout.write(`${JSON.stringify(await probe(name))}\n`);
}

async function probe(name: string): Promise<Outcome> {
  const item = corpus.find((candidate) => candidate.name === name);
  if (item === undefined) throw new Error(`no case ${name}`);
  const opened: string[] = [];
  const times = { readMilliseconds: 0, checkMilliseconds: 0 };
  let step: Step = 'open';
  let [wrongByte, verdict]: [number | null, Verdict | null] = [null, null];
  const memory = watchMemory();
  const start = process.cpuUsage();
  // what this process computes: a page fault costs 0.2 us or 17, as the machine has it, and memory has a budget of its own
  const spent = (): number => process.cpuUsage(start).user / 1000;
  const refusal = await refusalOf(async () => {
    const reader = await openForReading(
      imagePath(directory, name),
      'qcow2',
      opened,
      policyOf(item),
    );
    try {
      step = 'map';
      await reader.map(MOST_EXTENTS);
      step = 'read';
      wrongByte = await readSample(reader, item);
      times.readMilliseconds = spent();
      step = 'check';
      verdict = await reader.check();
      step = 'describe';
      await reader.describe();
      times.checkMilliseconds = spent() - times.readMilliseconds;
    } finally {
      await reader[Symbol.asyncDispose]();
    }
  });
  if (times.readMilliseconds === 0) times.readMilliseconds = spent();
  const grownBytes = memory();
  const refusedAt = refusal === null ? null : step;
  const { code = null, message = null } = refusal ?? {};
  return { name, refusedAt, code, message, wrongByte, verdict, ...times, grownBytes, opened };
}

function policyOf({ secret, allowDataFile }: CraftedCase): Partial<ChainPolicy> {
  const known = secret === undefined ? null : imageSecret(Buffer.from(secret));
  return { allowDataFile: allowDataFile === true, secretOf: () => known };
}

async function refusalOf(
  body: () => Promise<void>,
): Promise<{ code: string | null; message: string } | null> {
  try {
    await body();
    return null;
  } catch (error) {
    const { message } = error as Error;
    return { code: error instanceof DownfoldError ? error.code : null, message };
  }
}

async function readSample(reader: OpenForReading, item: CraftedCase): Promise<number | null> {
  const { virtualSize } = reader;
  const buffer = Buffer.alloc(PIECE);
  for (let at = 0; at < virtualSize; at += PIECE) {
    if (at >= SAMPLE && at + PIECE < virtualSize)
      at = Math.floor((virtualSize - 1) / PIECE) * PIECE;
    const piece = buffer.subarray(0, Math.min(PIECE, virtualSize - at));
    await reader.read(at, piece);
    const { view } = item.expected;
    if (view !== undefined) {
      const wanted = wantedBytes(view, at, piece.length);
      const wrong = piece.compare(wanted) === 0 ? -1 : piece.findIndex((b, i) => b !== wanted[i]);
      if (wrong >= 0) return at + wrong;
    }
  }
  return null;
}

function wantedBytes(view: readonly Region[], at: number, length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  for (const region of view) {
    const [start, end] = [region.at - at, region.at + region.length - at];
    if (end > 0 && start < length) bytes.fill(region.byte, Math.max(0, start), end);
  }
  return bytes;
}

/** Resets the kernel's high-water mark; the function it returns tells how far above the start the mark went. */
function watchMemory(): () => number {
  globalThis.gc?.();
  writeFileSync('/proc/self/clear_refs', '5');
  const start = process.memoryUsage.rss();
  return () => {
    const mark = /^VmHWM:\s+(\d+) kB$/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1];
    return Math.max(0, Number(mark) * 1024 - start);
  };
}
