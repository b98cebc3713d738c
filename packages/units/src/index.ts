export { alignDown, alignUp, ceilDivide, isPowerOfTwo } from './arithmetic.ts';
export {
  DownfoldError,
  type ErrorDetails,
  firstFailure,
  UnitsError,
  type UnitsErrorCode,
} from './errors.ts';
export { type Field, flags64, type Layout, layout, raw, u8, u16, u32, u64 } from './layout.ts';
export {
  type AnyOffset,
  advance,
  type ByteLength,
  byteLength,
  type GuestOffset,
  guestOffset,
  type HostOffset,
  hostOffset,
  LARGEST_OFFSET,
} from './offsets.ts';
export {
  type ByteRange,
  type GuestRange,
  type HostRange,
  intersect,
  rangeBetween,
  rangeEnd,
  splitRange,
} from './ranges.ts';
export { SECTOR_BYTES } from './sector.ts';
export { type DirectReads, SharedMap, SharedMapReader } from './shared-map.ts';
