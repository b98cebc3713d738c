import { alignUp, byteLength } from '@downfold/units';
import { BARRIER } from './barriers.ts';
import { imageError } from './corrupt.ts';
import { flushImage } from './flush.ts';
import { patchHeader } from './header-sector.ts';
import type { Qcow2State } from './state.ts';
import { SECTOR_BYTES } from './structures.ts';
import { deallocateImage } from './unmap.ts';
import { writerOf } from './writer.ts';

/**
 * Cuts the virtual disk at `virtualSize`, rounded up to sectors. One write of the header's first sector does it (W11); then what lies past the
 * new end is given back. A crash between leaves clusters that are mapped past the end, which nobody reads and growth clears.
 * Durable when it resolves. To be run in the mutation queue.
 * @throws ImageError `IMAGE_RANGE` for a larger size; `IMAGE_UNSUPPORTED` for version 2 with snapshots, which do not know their own size
 */
export async function shrinkImage(state: Qcow2State, virtualSize: number): Promise<void> {
  const { header, label, geometry } = state;
  const size = alignUp(virtualSize, SECTOR_BYTES);
  const old = header.size;
  if (size > old)
    throw imageError('IMAGE_RANGE', label, `${size} bytes are more than the present ${old}`);
  if (size === old) return;
  if (header.version === 2 && header.nbSnapshots > 0) {
    const feature = 'shrinking a version 2 image with internal snapshots';
    throw imageError('IMAGE_UNSUPPORTED', label, feature, undefined, { feature });
  }
  await flushImage(state);
  await patchHeader(state, { size }, BARRIER.size);
  await deallocateImage(
    state,
    alignUp(size, geometry.clusterSize),
    alignUp(old, geometry.clusterSize),
  );
  if (header.dataFile?.raw === true && state.data.supports.resize) {
    await state.data.setLength(byteLength(size));
    writerOf(state).dataDirty = true;
  }
  await flushImage(state);
}
