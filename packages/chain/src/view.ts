import type { CowSource } from '@downfold/image';
import type { ChainLayer } from './layer.ts';

/**
 * Reads the virtual disk as the layer at `index` shows it, at any offset: what the layer leaves unallocated comes from the one below;
 * past the end of a layer there are zeros, which hide what lies below it.
 */
export function viewOf(layers: readonly ChainLayer[], index: number): CowSource {
  const layer = layers[index];
  if (layer === undefined) throw new RangeError(`no layer ${index}`);
  const below = index === 0 ? null : viewOf(layers, index - 1);
  return async (offset, target) => {
    const inside = Math.max(0, Math.min(target.length, layer.image.geometry.virtualSize - offset));
    target.fill(0, inside);
    if (inside > 0) await layer.image.read(offset, target.subarray(0, inside), below);
  };
}
