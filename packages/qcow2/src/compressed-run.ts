import type { OperationOptions } from '@downfold/storage';
import { hostOffset } from '@downfold/units';
import { type CompressedPlace, compressedPlace, isZstd } from './compressed.ts';
import { corrupt } from './corrupt.ts';
import { decoder } from './decoder.ts';
import { SLACK_BYTES } from './inflater.ts';
import type { Qcow2State } from './state.ts';
import { loadL2 } from './tables.ts';

/** Bytes of the disk that are decompressed as one job. */
const JOB_BYTES = 512 << 10;
/** Bytes of jobs under way for one read: two threads have work, and as much waits. */
const WINDOW_BYTES = 4 * JOB_BYTES;

/**
 * Fills `target` with the whole compressed clusters from guest offset `at` on. What lies side by side in the file is read by one call, and
 * decompressed in jobs beside each other. @throws ImageError `IMAGE_CORRUPT` as `readCompressed`, of the first cluster that is wrong
 */
export async function readCompressedRun(
  state: Qcow2State,
  at: number,
  target: Uint8Array,
  options?: OperationOptions,
): Promise<void> {
  const { clusterSize } = state.geometry;
  const step = Math.max(clusterSize, JOB_BYTES);
  for (let window = 0; window < target.length; window += Math.max(step, WINDOW_BYTES)) {
    options?.signal?.throwIfAborted();
    const end = Math.min(target.length, window + Math.max(step, WINDOW_BYTES));
    const jobs: Promise<void>[] = [];
    for (let from = window; from < end; from += step)
      jobs.push(readJob(state, at + from, target.subarray(from, Math.min(end, from + step))));
    // all, whatever one of them ends with: the target is the caller's again after that
    for (const ended of await Promise.allSettled(jobs))
      if (ended.status === 'rejected') throw ended.reason;
  }
}

async function readJob(state: Qcow2State, at: number, target: Uint8Array): Promise<void> {
  const places = await placesOf(state, at, target.length / state.geometry.clusterSize);
  const layout = layoutOf(places);
  await decoder.withMemory(
    layout.length,
    target.length + SLACK_BYTES,
    async ({ packed, bytes }) => {
      await read(state, places, layout, packed);
      const { starts, lengths } = layout;
      const { clusterSize } = state.geometry;
      const zstd = isZstd(state);
      const bad = await decoder.decode({ packed, starts, lengths, zstd, clusterSize, bytes });
      if (bad !== null) throw corrupt(state.label, bad.why, places[bad.index]?.offset);
      target.set(bytes.subarray(0, target.length));
    },
  );
}

/** Where `count` clusters from guest offset `at` on lie, compressed. */
async function placesOf(
  state: Qcow2State,
  at: number,
  count: number,
): Promise<readonly CompressedPlace[]> {
  const { clusterSize, l2Reach, entryWords } = state.geometry;
  const places: CompressedPlace[] = [];
  while (places.length < count) {
    const next = at + places.length * clusterSize;
    const l1Index = Math.floor(next / l2Reach);
    const table = await loadL2(state, l1Index);
    if (table === null) throw corrupt(state.label, `no L2 table for guest byte ${next}`);
    const { words } = table;
    let word = ((next - l1Index * l2Reach) / clusterSize) * entryWords;
    for (; places.length < count && word < words.length; word += entryWords)
      places.push(compressedPlace(state, words[word] as number, words[word + 1] as number));
  }
  return places;
}

/** How compressed clusters lie in memory: as in the file where they lie close together, as a `convert` puts them; else one behind the other. */
interface PackedLayout {
  /** Byte of the file that the first one of memory is; null: each is read by itself. */
  readonly first: number | null;
  /** Bytes of memory. */
  readonly length: number;
  readonly starts: Float64Array;
  readonly lengths: Float64Array;
}

function layoutOf(places: readonly CompressedPlace[]): PackedLayout {
  const lengths = Float64Array.from(places, ({ length }) => length);
  const sum = lengths.reduce((total, length) => total + length, 0);
  const first = Math.min(...places.map(({ offset }) => offset));
  const span = Math.max(...places.map(({ offset, length }) => offset + length)) - first;
  if (span <= sum) {
    const starts = Float64Array.from(places, ({ offset }) => offset - first);
    return { first, length: span, starts, lengths };
  }
  const starts = new Float64Array(places.length);
  for (let index = 1; index < places.length; index++)
    starts[index] = (starts[index - 1] as number) + (lengths[index - 1] as number);
  return { first: null, length: sum, starts, lengths };
}

async function read(
  { storage }: Qcow2State,
  places: readonly CompressedPlace[],
  { first, length, starts }: PackedLayout,
  packed: Uint8Array,
): Promise<void> {
  if (first !== null) return storage.read(hostOffset(first), packed.subarray(0, length));
  for (const [index, place] of places.entries()) {
    const start = starts[index] as number;
    await storage.read(hostOffset(place.offset), packed.subarray(start, start + place.length));
  }
}
