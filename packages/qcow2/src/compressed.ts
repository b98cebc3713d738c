import { corrupt } from './corrupt.ts';
import type { Qcow2State } from './state.ts';
import { COMPRESSION, compressedBytes, compressedOffset } from './structures.ts';
import { loadL2 } from './tables.ts';
import { unpackCluster } from './unpack.ts';

/** The host bytes a compressed cluster lies in; they may straddle clusters. */
export interface CompressedPlace {
  readonly offset: number;
  readonly length: number;
}

/** Where an L2 entry says that its compressed cluster lies. @throws ImageError `IMAGE_CORRUPT` when that is past the end. */
export function compressedPlace(state: Qcow2State, high: number, low: number): CompressedPlace {
  const offset = compressedOffset(high, low, state.geometry.clusterBits);
  const length = compressedBytes(high, low, state.geometry.clusterBits);
  if (state.external !== null)
    throw corrupt(state.label, 'compressed cluster in an image with an external data file');
  if (offset < state.geometry.clusterSize || offset >= state.fileEnd)
    throw corrupt(state.label, `compressed cluster at ${offset} lies outside the file`);
  return { offset, length };
}

/**
 * The content of the compressed cluster at guest offset `at` (a multiple of the cluster size). The result is shared: not to
 * be changed. @throws ImageError `IMAGE_CORRUPT` when it does not decompress to exactly one cluster.
 */
export async function readCompressed(state: Qcow2State, at: number): Promise<Uint8Array> {
  if (state.lastCompressed?.at === at) return state.lastCompressed.bytes;
  const { clusterSize, l2Reach, entryWords } = state.geometry;
  const l1Index = Math.floor(at / l2Reach);
  const words = (await loadL2(state, l1Index))?.words ?? new Uint32Array();
  const index = ((at - l1Index * l2Reach) / clusterSize) * entryWords;
  const place = compressedPlace(state, words[index] as number, words[index + 1] as number);
  const { compressedAnew } = state;
  const packed = new Uint8Array(place.length);
  await state.storage.read(place.offset as never, packed);
  const bytes = unpack(state, packed, place.offset);
  // one that was compressed anew meanwhile is another one's content
  if (compressedAnew === state.compressedAnew) state.lastCompressed = { at, bytes };
  return bytes;
}

function unpack(state: Qcow2State, packed: Uint8Array, offset: number): Uint8Array {
  try {
    return unpackCluster(packed, isZstd(state), state.geometry.clusterSize);
  } catch (cause) {
    throw corrupt(state.label, (cause as Error).message, offset, cause);
  }
}

/** Whether clusters are compressed with zstd; else with deflate. */
export function isZstd(state: Qcow2State): boolean {
  return state.header.compressionType === COMPRESSION.zstd;
}
