import { byteLength } from '@downfold/units';
import type { ImageLimits } from './image.ts';

const MIB = 2 ** 20;

/** Limits of every format, unless `OpenImageOptions.limits` says otherwise. */
export const DEFAULT_IMAGE_LIMITS: ImageLimits = {
  metadataBytes: byteLength(64 * MIB),
  virtualSize: byteLength(64 * MIB * MIB),
  keyWork: 128 * MIB,
};
