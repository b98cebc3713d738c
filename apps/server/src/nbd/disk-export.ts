import { setImmediate } from 'node:timers/promises';
import { type BlockStatus, type Device, DeviceError } from '@downfold/device';
import {
  ALLOCATION_DEPTH,
  BASE_ALLOCATION,
  DEFAULT_BLOCK_SIZE,
  type DirectReads,
  type Export,
  errnoError,
  STATE,
  type StatusExtent,
} from '@downfold/nbd';
import { byteLength, type GuestRange, guestOffset, splitRange } from '@downfold/units';

/** How a disk is shown to clients. */
export interface DiskExportOptions {
  readonly writable: boolean;
  readonly description: string;
  readonly allocationDepth: boolean;
  /** Every change is durable when it is answered. */
  readonly writethrough: boolean;
  /** What discards do; asked for each, since the active layer may change. */
  readonly discards: () => boolean;
  /** For threads that read the disk by themselves; null: none does. */
  readonly direct: DirectReads | null;
}

/** Reading ahead is done in pieces of this. */
const CACHE_PIECE = 1 << 20;

/** A disk as an NBD export. The device orders requests, so that all connections see one disk: `multiConn`. */
export function diskExport(device: Device, options: DiskExportOptions): Export {
  const { writable, description, allocationDepth, writethrough, discards, direct } = options;
  const durable = ({ fua }: { readonly fua: boolean }): { readonly fua: boolean } => ({
    fua: fua || (writethrough && writable),
  });
  const range = (offset: number, length: number): GuestRange => ({
    offset: guestOffset(offset),
    length: byteLength(length),
  });
  return {
    size: device.size,
    readOnly: !writable,
    description,
    blockSize: DEFAULT_BLOCK_SIZE,
    supports: { trim: writable, fastZero: writable, cache: true, multiConn: true },
    contexts: allocationDepth ? [BASE_ALLOCATION, ALLOCATION_DEPTH] : [BASE_ALLOCATION],
    direct,
    read: async (offset, target) => {
      await device.read(guestOffset(offset), target);
      return [];
    },
    write: (offset, source, how) => device.write(guestOffset(offset), source, durable(how)),
    writeZeroes: (offset, length, { mayTrim, fast, signal, ...how }) =>
      device
        .writeZeroes(range(offset, length), { ...durable(how), mayUnmap: mayTrim, fast, signal })
        .catch(refusedAsSlow),
    trim: async (offset, length, { signal, ...how }) => {
      if (discards()) await device.discard(range(offset, length), { ...durable(how), signal });
      else if (durable(how).fua) await device.flush();
    },
    flush: async () => {
      // a disk that is for reading has nothing to make durable
      if (writable) await device.flush();
    },
    cache: async (offset, length, { signal }) => {
      // what was read once the host holds in memory
      const scratch = new Uint8Array(Math.min(length, CACHE_PIECE));
      for (const piece of splitRange(range(offset, length), CACHE_PIECE)) {
        // where there are holes nothing waits for a disk, and nobody else would have a turn
        await setImmediate();
        signal.throwIfAborted();
        await device.read(piece.offset, scratch.subarray(0, piece.length));
      }
    },
    blockStatus: async (context, offset, length, limit, { signal }) => {
      const extents: StatusExtent[] = [];
      for await (const batch of device.blockStatus(range(offset, length), { limit, signal }))
        for (const status of batch) append(extents, extentOf(context, status));
      return extents;
    },
  };
}

function extentOf(context: string, { length, hole, zero, depth }: BlockStatus): StatusExtent {
  if (context === ALLOCATION_DEPTH) return { length, status: depth };
  return { length, status: (hole ? STATE.hole : 0) | (zero ? STATE.zero : 0) };
}

/** Layers that differ in depth alone are one run for who asks for allocation. */
function append(extents: StatusExtent[], next: StatusExtent): void {
  const last = extents.at(-1);
  if (last?.status !== next.status) extents.push(next);
  else extents[extents.length - 1] = { ...last, length: last.length + next.length };
}

function refusedAsSlow(cause: unknown): never {
  if (cause instanceof DeviceError && cause.code === 'DEVICE_UNSUPPORTED')
    throw errnoError('ENOTSUP', 'zeros would have to be written as data', cause);
  throw cause;
}
