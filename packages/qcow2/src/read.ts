import type { CowSource } from '@downfold/image';
import type { OperationOptions } from '@downfold/storage';
import { type GuestOffset, hostOffset } from '@downfold/units';
import { readCompressed } from './compressed.ts';
import { readCompressedRun } from './compressed-run.ts';
import { imageExtents } from './extents.ts';
import type { Qcow2State } from './state.ts';

/**
 * Fills `target` with the layer's bytes; what is unallocated comes from `below`, or is zero. The clusters that hold them are not given to
 * others before it is over, whatever is written or let go meanwhile.
 */
export function readImage(
  state: Qcow2State,
  offset: number,
  target: Uint8Array,
  below: CowSource | null,
  options?: OperationOptions,
): Promise<void> {
  const reading = readExtents(state, offset, target, below, options);
  const reads = state.writer?.reads;
  if (reads === undefined) return reading;
  reads.add(reading);
  return reading.finally(() => reads.delete(reading));
}

async function readExtents(
  state: Qcow2State,
  offset: number,
  target: Uint8Array,
  below: CowSource | null,
  options?: OperationOptions,
): Promise<void> {
  const range = { offset: offset as GuestOffset, length: target.length as never };
  for await (const batch of imageExtents(state, range, options)) {
    for (const extent of batch) {
      const from = extent.offset - offset;
      const part = target.subarray(from, from + extent.length);
      if (extent.status === 'data') await state.data.read(hostOffset(extent.host), part, options);
      else if (extent.status === 'compressed')
        await copyCompressed(state, extent.offset, part, options);
      else if (extent.status === 'unallocated' && below !== null) await below(extent.offset, part);
      else part.fill(0);
    }
  }
}

/** Clusters that `target` cuts are decompressed one by one, whole ones between them together. */
async function copyCompressed(
  state: Qcow2State,
  offset: number,
  target: Uint8Array,
  options?: OperationOptions,
): Promise<void> {
  const { clusterSize } = state.geometry;
  for (let done = 0; done < target.length; ) {
    const at = offset + done;
    const inside = at % clusterSize;
    const whole = target.length - done - ((target.length - done) % clusterSize);
    if (inside === 0 && whole > clusterSize) {
      await readCompressedRun(state, at, target.subarray(done, done + whole), options);
      done += whole;
      continue;
    }
    const bytes = await readCompressed(state, at - inside);
    const part = bytes.subarray(inside, inside + target.length - done);
    target.set(part, done);
    done += part.length;
  }
}
