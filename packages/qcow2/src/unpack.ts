import { constants, inflateRawSync, zstdDecompressSync } from 'node:zlib';
import { decompressInto, SLACK_BYTES } from './inflater.ts';

/** Compressed clusters, as they are handed to a thread: `lengths[i]` bytes at `starts[i]` of `packed` are the cluster `i`. */
export interface Packed {
  readonly packed: Uint8Array;
  readonly starts: Float64Array;
  readonly lengths: Float64Array;
  readonly zstd: boolean;
  /** Bytes of each cluster. */
  readonly clusterSize: number;
  /** Where they go, one behind the other; with `SLACK_BYTES` behind the last one. */
  readonly bytes: Uint8Array;
}

/** Which cluster does not decompress, by number, and why. */
export interface Bad {
  readonly index: number;
  readonly why: string;
}

/** Decompresses clusters, up to the first bad one. Knows no image: it runs in threads too. */
export function unpackClusters(job: Packed): Bad | null {
  const { packed, starts, lengths, zstd, clusterSize, bytes } = job;
  for (let index = 0; index < starts.length; index++) {
    const start = starts[index] as number;
    const part = packed.subarray(start, start + (lengths[index] as number));
    try {
      if (!decompressInto(part, zstd, bytes, index * clusterSize, clusterSize))
        bytes.set(unpackSlowly(part, zstd, clusterSize), index * clusterSize);
    } catch (cause) {
      return { index, why: (cause as Error).message };
    }
  }
  return null;
}

/** The cluster of `size` bytes that `packed` holds; what follows it there is padding. @throws Error when it is not one */
export function unpackCluster(packed: Uint8Array, zstd: boolean, size: number): Uint8Array {
  const bytes = new Uint8Array(size + SLACK_BYTES);
  if (decompressInto(packed, zstd, bytes, 0, size)) return bytes.subarray(0, size);
  return unpackSlowly(packed, zstd, size);
}

/** With what Node documents; says what is wrong. */
function unpackSlowly(packed: Uint8Array, zstd: boolean, size: number): Uint8Array {
  const bytes = zstd ? unpackFrames(packed, size) : inflate(packed, size);
  if (bytes.length !== size)
    throw new Error(`compressed cluster of ${bytes.length} bytes, expected ${size}`);
  return bytes;
}

function inflate(packed: Uint8Array, size: number): Uint8Array {
  return decompressing(() =>
    inflateRawSync(packed, {
      windowBits: 12,
      // the stream is padded to a sector, and QEMU accepts one that ends early once the cluster is full
      finishFlush: constants.Z_SYNC_FLUSH,
      maxOutputLength: size,
      // room for more than comes: a full buffer is taken for one that has to go on in another
      chunkSize: size + 64,
    }),
  );
}

function decompressing<T>(work: () => T): T {
  try {
    return work();
  } catch (cause) {
    throw new Error(`compressed cluster does not decompress: ${(cause as Error).message}`, {
      cause,
    });
  }
}

/** Decompresses zstd frames until `size` bytes came out; what follows them is padding. */
function unpackFrames(packed: Uint8Array, size: number): Uint8Array {
  return decompressing(() => framesOf(packed, size));
}

function framesOf(packed: Uint8Array, size: number): Uint8Array {
  const target = new Uint8Array(size);
  let [from, filled] = [0, 0];
  while (filled < size) {
    const length = frameBytes(packed, from);
    const part = zstdDecompressSync(packed.subarray(from, from + length), {
      maxOutputLength: size - filled,
      chunkSize: size + 64,
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
