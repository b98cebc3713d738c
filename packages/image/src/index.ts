export type { CheckFinding, CheckOptions, CheckReport } from './check.ts';
export { ImageError, type ImageErrorCode } from './errors.ts';
export type { Allocation, Extent } from './extent.ts';
export type {
  BackingReference,
  CowSource,
  CreateImageOptions,
  Image,
  ImageAbility,
  ImageFormat,
  ImageGeometry,
  ImageLimits,
  ImageMark,
  ImageWriteOptions,
  OpenImageOptions,
} from './image.ts';
