import { constants, inflateRawSync, zstdDecompressSync } from 'node:zlib';
import { corrupt } from './corrupt.ts';
import type { Qcow2State } from './state.ts';
import { COMPRESSION, compressedBytes, compressedOffset } from './structures.ts';
import { loadL2 } from './tables.ts';

/** The host bytes a compressed cluster lies in; they may straddle clusters. */
export interface CompressedPlace {
  readonly offset: number;
  readonly length: number;
}

/** Where an L2 entry says that its compressed cluster lies. @throws ImageError `IMAGE_CORRUPT` when that is past the end. */
export function compressedPlace(state: Qcow2State, high: number, low: number): CompressedPlace {
  const offset = compressedOffset(high, low, state.geometry.clusterBits);
  const length = compressedBytes(high, low, state.geometry.clusterBits);
  if (state.storage !== state.data)
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
  const packed = new Uint8Array(place.length);
  await state.storage.read(place.offset as never, packed);
  const bytes = unpack(state, packed, place.offset);
  if (bytes.length !== clusterSize)
    throw corrupt(
      state.label,
      `compressed cluster of ${bytes.length} bytes, expected ${clusterSize}`,
      place.offset,
    );
  state.lastCompressed = { at, bytes };
  return bytes;
}

function unpack(state: Qcow2State, packed: Uint8Array, offset: number): Uint8Array {
  const { clusterSize } = state.geometry;
  try {
    if (state.header.compressionType === COMPRESSION.zstd) return unpackFrames(packed, clusterSize);
    return inflateRawSync(packed, {
      windowBits: 12,
      // the stream is padded to a sector, and QEMU accepts one that ends early once the cluster is full
      finishFlush: constants.Z_SYNC_FLUSH,
      maxOutputLength: clusterSize,
      chunkSize: Math.max(64, clusterSize),
    });
  } catch (cause) {
    throw corrupt(
      state.label,
      `compressed cluster does not decompress: ${(cause as Error).message}`,
      offset,
      cause,
    );
  }
}

/** Decompresses zstd frames until `size` bytes came out; what follows them is padding. */
function unpackFrames(packed: Uint8Array, size: number): Uint8Array {
  const target = new Uint8Array(size);
  let [from, filled] = [0, 0];
  while (filled < size) {
    const length = frameBytes(packed, from);
    const part = zstdDecompressSync(packed.subarray(from, from + length), {
      maxOutputLength: size - filled,
    });
    if (part.length === 0) throw new Error('empty frame');
    target.set(part, filled);
    filled += part.length;
    from += length;
  }
  return target;
}

const FRAME_MAGIC = 0xfd2f_b528;
const RLE_BLOCK = 1;

/** Bytes of the zstd frame at `at`. Node refuses trailing bytes, so frames are cut out. Source: RFC 8878, 3.1.1. */
function frameBytes(packed: Uint8Array, at: number): number {
  const view = new DataView(packed.buffer, packed.byteOffset + at, packed.byteLength - at);
  if (view.getUint32(0, true) !== FRAME_MAGIC) throw new Error('not a zstd frame');
  const descriptor = view.getUint8(4);
  const single = (descriptor >>> 5) & 1;
  const dictionary = [0, 1, 2, 4][descriptor & 3] as number;
  const contentSize = [single, 2, 4, 8][descriptor >>> 6] as number;
  let next = 5 + (single ? 0 : 1) + dictionary + contentSize;
  for (let last = false; !last; ) {
    const head =
      view.getUint8(next) | (view.getUint8(next + 1) << 8) | (view.getUint8(next + 2) << 16);
    last = (head & 1) === 1;
    next += 3 + (((head >>> 1) & 3) === RLE_BLOCK ? 1 : head >>> 3);
  }
  return next + ((descriptor >>> 2) & 1 ? 4 : 0);
}
