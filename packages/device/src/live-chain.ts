import { type ChainLayer, identityKey, viewOf } from '@downfold/chain';
import type { CowSource, Image } from '@downfold/image';
import { DeviceError } from './errors.ts';

/** The layers under a disk at one time, bottom first, and what follows from them. */
export interface LiveChain {
  readonly layers: readonly ChainLayer[];
  /** The last layer: the only one that the guest's requests change. */
  readonly active: Image;
  /** What the active layer leaves to those below it; null: nothing is below. */
  readonly below: CowSource | null;
}

/** @throws DeviceError `DEVICE_BAD_CHAIN` when they cannot be the disk, for writing unless `readOnly` */
export function linkLayers(layers: readonly ChainLayer[], readOnly: boolean): LiveChain {
  const active = layers.at(-1)?.image;
  if (active === undefined) throw new DeviceError('DEVICE_BAD_CHAIN', 'a disk has layers');
  if (!readOnly && !active.writable)
    throw new DeviceError(
      'DEVICE_BAD_CHAIN',
      `${active.label}: is the active layer of a disk that is written to, and open for reading only`,
      { image: active.label },
    );
  if (new Set(layers.map(({ image }) => image)).size < layers.length)
    throw new DeviceError('DEVICE_BAD_CHAIN', `${active.label}: a layer lies over itself`, {
      image: active.label,
    });
  const below = layers.length === 1 ? null : viewOf(layers, layers.length - 2);
  return { layers: [...layers], active, below };
}

/** Whether the layers are the same files in the same order, with the same active layer. */
export function isReopened(before: LiveChain, now: LiveChain): boolean {
  const keys = ({ layers }: LiveChain): string =>
    layers.map(({ image }) => identityKey(image.file.identity)).join();
  return before.active === now.active && keys(before) === keys(now);
}
