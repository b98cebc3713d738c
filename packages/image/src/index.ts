export type { CheckFinding, CheckOptions, CheckReport } from './check.ts';
export { ImageError, type ImageErrorCode } from './errors.ts';
export type { Allocation, Extent } from './extent.ts';
export type {
  BackingReference,
  CreateImageOptions,
  Image,
  ImageAbility,
  ImageDescription,
  ImageFormat,
  ImageGeometry,
  ImageLimits,
  ImageMark,
  ImageSnapshot,
  OpenImageOptions,
  ReclaimOptions,
} from './image.ts';
export { DEFAULT_IMAGE_LIMITS } from './limits.ts';
export type { PublishOptions, StageOptions, Staging, StagingToken } from './staging.ts';
export type { CowSource, ImageCopyPiece, ImageWriteOptions } from './write-options.ts';
