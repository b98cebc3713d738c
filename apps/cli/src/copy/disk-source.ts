import { type OpenChain, subchainExtents, viewOf } from '@downfold/chain';
import { type CowSource, WORTHWHILE_HOLE_BYTES } from '@downfold/image';
import { type GuestRange, guestOffset, rangeBetween, rangeEnd } from '@downfold/units';

/**
 * What a copy finds somewhere: `data` to be read, `zero` to be made zeros, or `below`: nothing of the source itself, the backing file that
 * source and copy share shows there.
 */
export type Kind = 'data' | 'zero' | 'below';

/** Bytes [start, end) of the copy that are of one kind. */
export interface Run {
  readonly kind: Kind;
  readonly start: number;
  readonly end: number;
}

/** A disk to be copied, as bytes [0, length). */
export interface DiskSource {
  readonly length: number;
  /** Ordered and gapless. */
  runs(signal?: AbortSignal): AsyncIterable<readonly Run[]>;
  /** Fills `target` from `at` on; past the end are zeros. */
  read(at: number, target: Uint8Array): Promise<void>;
}

/** Which part of what a chain shows is the source. */
export interface ChainPart {
  /** The layer that source and copy share, and all below it; -1: none, everything is copied. */
  readonly base?: number;
  /** Guest bytes; default: all. */
  readonly range?: GuestRange;
  /** Finest hole of a file that is told from data, in bytes. Default: one that is worth to be skipped. */
  readonly holes?: number;
}

/** The disk that a chain shows, or a part of it. */
export function chainSource(
  { layers }: OpenChain,
  { base = -1, range, holes = WORTHWHILE_HOLE_BYTES }: ChainPart = {},
): DiskSource {
  const top = layers.length - 1;
  const size = layers[top]?.image.geometry.virtualSize ?? 0;
  const part = range ?? rangeBetween(guestOffset(0), size);
  const view: CowSource = viewOf(layers, top);
  return {
    length: part.length,
    runs: async function* (signal) {
      for await (const extents of subchainExtents(layers, { base, top }, part, { signal, holes }))
        yield Array.from(extents, (extent) => ({
          kind: kindOf(extent.status, base),
          start: extent.offset - part.offset,
          end: rangeEnd(extent) - part.offset,
        }));
    },
    read: (at, target) => view(guestOffset(part.offset + at), target),
  };
}

function kindOf(status: string, base: number): Kind {
  if (status === 'data' || status === 'compressed') return 'data';
  return status === 'unallocated' && base >= 0 ? 'below' : 'zero';
}

/** Several disks, one after the other. */
export function concatenated(sources: readonly DiskSource[]): DiskSource {
  const [only] = sources;
  if (only !== undefined && sources.length === 1) return only;
  const starts: number[] = [];
  let length = 0;
  for (const source of sources) {
    starts.push(length);
    length += source.length;
  }
  return {
    length,
    runs: async function* (signal) {
      for (const [index, source] of sources.entries()) {
        const start = starts[index] as number;
        for await (const runs of source.runs(signal))
          yield runs.map((run) => ({ ...run, start: run.start + start, end: run.end + start }));
      }
    },
    read: async (at, target) => {
      target.fill(0);
      for (const [index, source] of sources.entries()) {
        const start = starts[index] as number;
        const from = Math.max(at, start);
        const to = Math.min(at + target.length, start + source.length);
        if (from < to) await source.read(from - start, target.subarray(from - at, to - at));
      }
    },
  };
}
