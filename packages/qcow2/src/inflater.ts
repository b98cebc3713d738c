import { constants, createInflateRaw, createZstdDecompress } from 'node:zlib';

/** Bytes of room behind what is to come: more than that shows as such. */
export const SLACK_BYTES = 64;

/**
 * What lies beneath Node's streams of zlib: undocumented, and therefore used in versions only that it was looked at in (Node 24: lib/zlib.js,
 * `processChunkSync`). What Node has for one buffer makes a stream, and new buffers, for each: 3 to 4 times what the decompression takes.
 */
interface Handle {
  reset(): void;
  writeSync(
    flush: number,
    source: Uint8Array,
    from: number,
    length: number,
    target: Uint8Array,
    to: number,
    room: number,
  ): void;
  onerror: (message: string) => void;
}

interface Stream {
  readonly _handle?: Handle;
  /** Bytes of room left in the target; of input that was not taken. */
  readonly _writeState?: Uint32Array;
}

const KNOWN: ReadonlySet<string | undefined> = new Set(['24']);
const isKnown = KNOWN.has(process.versions.node.split('.')[0]);

/** Decompresses one buffer after the other into memory of its user. */
class Inflater {
  readonly #handle: Handle;
  readonly #state: Uint32Array;
  readonly #flush: number;
  #failed = false;

  constructor(handle: Handle, state: Uint32Array, flush: number) {
    this.#handle = handle;
    this.#state = state;
    this.#flush = flush;
    // the stream's own would destroy it
    handle.onerror = () => {
      this.#failed = true;
    };
  }

  /** As `decompressInto`. */
  run(packed: Uint8Array, target: Uint8Array, to: number, size: number): boolean {
    const room = size + SLACK_BYTES;
    this.#failed = false;
    this.#handle.reset();
    this.#handle.writeSync(this.#flush, packed, 0, packed.length, target, to, room);
    return !this.#failed && this.#state[0] === SLACK_BYTES;
  }
}

/** Undefined: to be made anew. Null: cannot be had. */
const inflaters: Record<'zlib' | 'zstd', Inflater | null | undefined> = {
  zlib: undefined,
  zstd: undefined,
};

/**
 * Decompresses into `size` bytes at `to` of `target`, and up to `SLACK_BYTES` behind them. False: it did not come to exactly that, or cannot be done
 * here; what is wrong, if something is, has to be found out in another way.
 */
export function decompressInto(
  packed: Uint8Array,
  zstd: boolean,
  target: Uint8Array,
  to: number,
  size: number,
): boolean {
  const kind = zstd ? 'zstd' : 'zlib';
  let inflater = inflaters[kind];
  if (inflater === undefined) {
    inflater = isKnown ? inflaterOf(zstd) : null;
    inflaters[kind] = inflater;
  }
  if (inflater === null) return false;
  const isDone = inflater.run(packed, target, to, size);
  // after an error it may be in any state
  if (!isDone) inflaters[kind] = undefined;
  return isDone;
}

function inflaterOf(zstd: boolean): Inflater | null {
  const stream = zstd ? createZstdDecompress() : createInflateRaw({ windowBits: 12 });
  const flush = zstd ? constants.ZSTD_e_continue : constants.Z_SYNC_FLUSH;
  const { _handle: handle, _writeState: state } = stream as Stream;
  return handle === undefined || state === undefined ? null : new Inflater(handle, state, flush);
}
