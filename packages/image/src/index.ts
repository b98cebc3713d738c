export {
  type BitmapContent,
  type BitmapFacts,
  type Bitmaps,
  dirtyRanges,
  type NewBitmap,
} from './bitmaps.ts';
export type { CheckFinding, CheckOptions, CheckReport } from './check.ts';
export { ImageError, type ImageErrorCode } from './errors.ts';
export type { Allocation, Extent } from './extent.ts';
export {
  type ExtentBatch,
  ExtentColumns,
  ExtentList,
  extentAt,
  isPlaced,
  isZeroKind,
  KIND,
  type Kind,
} from './extent-batch.ts';
export { ExtentCursor } from './extent-cursor.ts';
export { FlatImage, type FlatImageOptions } from './flat-image.ts';
export { type ExtentsOptions, WORTHWHILE_HOLE_BYTES, withHoles } from './holes.ts';
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
export { type ImageSecret, imageSecret } from './secret.ts';
export type { PublishOptions, StageOptions, Staging, StagingToken, Undo } from './staging.ts';
export type { CowSource, ImageCopyPiece, ImageWriteOptions } from './write-options.ts';
